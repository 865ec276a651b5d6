"""Connections: proxies, IPv6, and invalid certificates."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import parse_reference
from lazylayer.api.settings import ResolveSettings, Settings
from lazylayer.errors import ConfigurationError, UnavailableError
from lazylayer_resolver_registry import ResolverRegistry
from lazylayer_resolver_registry import transport as transport_module
from lazylayer_resolver_registry.connections import ConnectionOptions, make_client
from lazylayer_resolver_registry.options import Options
from lazylayer_resolver_registry.proxies import Proxies
from lazylayer_resolver_registry.streams import Streams
from lazylayer_resolver_registry.transport import Transport
from lazylayer_testing.registry import Fault, Gate, ScriptedRegistry, TokenAuthentication

from .client import PLATFORM, REPOSITORY, Client, fetched

FAR = "registry.invalid"


@pytest.fixture
def plugin() -> Iterator[ResolverRegistry]:
    """Return the plugin for a registry that does not exist, so only a proxy can answer."""
    plugin = ResolverRegistry()
    plugin.lazylayer_configure(Settings(resolve=ResolveSettings(plain_http=(FAR,))), Options(attempts=1))
    yield plugin
    plugin.lazylayer_close()


def resolves(plugin: ResolverRegistry) -> bool:
    reference = parse_reference(f"{FAR}/{REPOSITORY}:latest")
    return plugin.lazylayer_resolve_image(reference, PLATFORM, lambda _: None) is not None


def test_a_proxy_of_the_environment_is_used(
    client: Client, registry: ScriptedRegistry, plugin: ResolverRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.add_image()
    monkeypatch.setenv("HTTP_PROXY", registry.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert resolves(plugin)
    assert {request.headers["host"] for request in registry.requests} == {FAR}


def test_no_proxy_is_heard(
    registry: ScriptedRegistry, plugin: ResolverRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", registry.url)
    monkeypatch.setenv("NO_PROXY", FAR)
    with pytest.raises(UnavailableError):
        resolves(plugin)
    assert registry.requests == []


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("foo://ann:s3cret@proxy.test:1", "not a proxy URL"),
        ("http://ann:s3cret@proxy.test:port", "not a proxy URL"),
        ("http://", "not a proxy URL"),
        ("socks5://ann:s3cret@proxy.test:1", "install the package socksio"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_explained(
    plugin: ResolverRegistry, monkeypatch: pytest.MonkeyPatch, proxy: str, said: str
) -> None:
    if proxy.startswith("socks") and importlib.util.find_spec("socksio"):
        pytest.skip("socksio is here")
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConfigurationError, match=said) as caught:
        resolves(plugin)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("exceptions", "url", "without"),
    [
        ("", "http://registry.test", False),
        ("*", "http://registry.test", True),
        ("registry.test", "http://registry.test", True),
        ("registry.test", "http://a.registry.test", True),
        ("registry.test", "http://myregistry.test", False),
        (".registry.test", "http://registry.test", False),
        (".registry.test, other.test", "http://a.registry.test", True),
        ("*.registry.test", "https://a.registry.test", True),
        ("*.registry.test", "https://registry.test", False),
        ("REGISTRY.test", "http://registry.TEST", True),
        ("registry.test:5000", "http://registry.test:5000", True),
        ("registry.test:5000", "http://registry.test", False),
        ("registry.test:443", "https://registry.test", True),
        ("10.0.0.0/8", "http://10.1.2.3:5000", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.0.0.0/8", "http://registry.test", False),
        ("10.1.2.3", "http://10.1.2.3", True),
        ("10.1.2.3:5000", "http://10.1.2.3:5001", False),
        ("fd00::/8", "https://[fd00::7]:5000", True),
        ("::/0", "https://[fd00::7]", True),
        ("fd00::7", "https://[fd00::7]", True),
        ("[fd00::7]:5000", "https://[fd00::7]:5000", True),
        ("[fd00::7]:5000", "https://[fd00::7]", False),
        (",,:, /", "http://registry.test", False),
        ("", "http://127.0.0.1:5000", True),
    ],
)
def test_exceptions_from_proxies(exceptions: str, url: str, without: bool) -> None:
    proxies = Proxies({"all": "proxy.test:3128", "no": exceptions})
    assert proxies.proxy(httpx.URL(url)) == ("" if without else "http://proxy.test:3128")


def test_each_scheme_has_its_proxy() -> None:
    proxies = Proxies({"http": "http://one.test", "all": "http://all.test"})
    assert proxies.proxy(httpx.URL("http://registry.test")) == "http://one.test"
    assert proxies.proxy(httpx.URL("https://registry.test")) == "http://all.test"
    assert Proxies({}).proxy(httpx.URL("https://registry.test")) == ""


@given(st.text(max_size=40))
def test_no_exception_breaks_the_reader(exceptions: str) -> None:
    Proxies({"all": "proxy.test:3128", "no": exceptions}).proxy(httpx.URL("http://registry.test"))


def test_this_machine_is_reached_without_a_proxy(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    client.add_image()
    assert client.image()


def test_a_configured_proxy_is_for_its_place_alone(registry: ScriptedRegistry, storage: ScriptedRegistry) -> None:
    hosts = [{"host": FAR, "server": f"http://{FAR}", "proxy": registry.url}]
    client = Client(registry, {"hosts": hosts}, attempts=1)
    client.add_image()
    assert resolves(client.plugin)
    registry.redirect_blobs(storage)
    reference = parse_reference(f"{FAR}/{REPOSITORY}:latest")
    source = client.plugin.lazylayer_resolve_blob(reference, client.layer, client.keychain)
    assert source is not None
    # Not even a proxy lets a registry elsewhere send us to this machine.
    with pytest.raises(UnavailableError, match="local address"):
        fetched(source, [ByteRange(0, 10)])
    assert storage.requests == []
    client.plugin.lazylayer_close()


def test_a_registry_at_an_ipv6_address() -> None:
    try:
        registry = ScriptedRegistry(address="::1")
    except OSError:
        pytest.skip("there is no IPv6 here")
    with registry:
        client = Client(registry)
        client.add_image()
        assert registry.host.startswith("[::1]:")
        assert client.image()
        assert client.read(client.source(), (0, 1000), (5000, 6000))
        client.plugin.lazylayer_close()


@pytest.mark.parametrize("text", ["", "no certificate at all"])
def test_an_authority_that_is_none_names_its_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ca.crt"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"ca\.crt: not a file of trusted certificates"):
        make_client(True, "", ConnectionOptions(ca=(str(file),)), Options(), Streams())
    with pytest.raises(ConfigurationError, match=r"ca\.crt: not a client certificate"):
        make_client(True, "", ConnectionOptions(client=((str(file), ""),)), Options(), Streams())


def test_a_changed_certificate_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.touch()
    before = ConnectionOptions(ca=(str(file),)).stamped()
    assert ConnectionOptions(ca=(str(file),)).stamped() == before
    import os

    os.utime(file, ns=(1, 1))
    assert ConnectionOptions(ca=(str(file),)).stamped() != before


def test_timeouts_are_those_of_the_place_or_the_plugin() -> None:
    options = Options(connect_timeout=3, idle_timeout=4)
    with make_client(False, "", ConnectionOptions(), options, Streams()) as client:
        assert client.timeout == httpx.Timeout(4, connect=3, pool=None)
    with make_client(False, "", ConnectionOptions(connect_timeout=1, idle_timeout=0), options, Streams()) as client:
        assert client.timeout == httpx.Timeout(None, connect=1, pool=None)


def test_a_plain_answer_of_a_tls_port_is_explained(registry: ScriptedRegistry) -> None:
    hosts = [{"host": registry.host, "server": registry.url.replace("http:", "https:")}]
    client = Client(registry, {"hosts": hosts}, attempts=1)
    registry.script(Fault(status=400), times=None)
    with pytest.raises(UnavailableError, match="https://"):
        client.image()
    client.plugin.lazylayer_close()


def test_one_connection_is_used_again_and_again(
    client: Client, registry: ScriptedRegistry, storage: ScriptedRegistry
) -> None:
    registry.authentication = TokenAuthentication(announced_lifetime=0)
    client.add_image()
    source = client.source()
    for number in range(5):
        assert client.image()
        assert client.read(source, (number, number + 10))
        assert client.read(source, (number, number + 10), (50_000, 60_000))
        source.check()
    registry.script(Fault(status=503), path="*/blobs/*")
    assert client.read(source, (0, 10))
    registry.redirect_blobs(storage)
    for _ in range(3):
        assert client.read(client.source(), (0, 300_000))
    assert registry.connections == 1
    assert storage.connections == 1


def test_a_whole_blob_is_not_read_for_the_sake_of_a_connection(client: Client, registry: ScriptedRegistry) -> None:
    registry.script(Fault(ignore_range=True, stall_after=100_000, stall_until=(gate := Gate())), path="*/blobs/*")
    assert client.read(client.source(), (0, 1000))
    gate.release()


def test_nobody_waits_for_many_idle_timeouts(registry: ScriptedRegistry) -> None:
    client = Client(registry, idle_timeout=0.2, attempts=10)
    gate = Gate()
    registry.script(Fault(hold=gate), times=None)
    with pytest.raises(UnavailableError):
        client.image()
    gate.release()
    assert len(registry.requests) == 2
    client.plugin.lazylayer_close()


def test_the_end_of_the_program_ends_waiting(registry: ScriptedRegistry) -> None:
    client = Client(registry)
    registry.script(Fault(status=503, headers={"Retry-After": "60"}), times=None)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.image)
        while not (registry.requests and registry.requests[0].finished):
            threading.Event().wait(0.01)
        client.plugin.lazylayer_close()
        with pytest.raises(UnavailableError, match="lazylayer is ending"):
            waiting.result(30)


def test_a_client_that_was_replaced_is_closed_when_nobody_uses_it(
    registry: ScriptedRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[httpx.Client] = []

    def make(*arguments: Any) -> httpx.Client:
        made.append(make_client(*arguments))
        return made[-1]

    monkeypatch.setattr(transport_module, "make_client", make)
    certificate = tmp_path / "ca.crt"
    certificate.write_text("one")
    connection = ConnectionOptions(ca=(str(certificate),)).stamped()
    transport = Transport(Options())
    url = httpx.URL(f"{registry.url}/v2/")
    with transport.send("GET", url, {}, connection=connection) as response:
        os.utime(certificate, ns=(1, 1))
        with transport.send("GET", url, {}, connection=connection):
            assert [client.is_closed for client in made] == [False, False]
        assert response.read() is not None
    assert [client.is_closed for client in made] == [True, False]
    os.utime(certificate, ns=(2, 2))
    with transport.send("GET", url, {}, connection=connection):
        assert [client.is_closed for client in made] == [True, True, False]
    transport.close()
    assert all(client.is_closed for client in made)
