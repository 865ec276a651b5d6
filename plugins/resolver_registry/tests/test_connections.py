"""Connections: proxies, IPv6, and certificates that cannot be used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from lazylayer.errors import ConfigurationError, UnavailableError
from lazylayer.extents import Extent
from lazylayer.oci import parse_reference
from lazylayer.settings import ResolveSettings, Settings
from lazylayer.testing.registry import Fault, Gate, ScriptedRegistry, TokenAuthentication
from lazylayer_resolver_registry import ResolverRegistry
from lazylayer_resolver_registry.connections import ConnectionOptions, make_client
from lazylayer_resolver_registry.options import Options
from synthetic.registry_client import PLATFORM, REPOSITORY, Client, fetched

FAR = "registry.invalid"


@pytest.fixture
def plugin() -> Iterator[ResolverRegistry]:
    """The plugin, for a registry that does not exist: whoever answers for it is a proxy."""
    plugin = ResolverRegistry()
    options = {"attempts": 1}
    plugin.lazylayer_configure(
        Settings(resolve=ResolveSettings(plain_http=(FAR,)), plugin={"resolver_registry": options})
    )
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
        fetched(source, [Extent(0, 10)])
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
    with pytest.raises(ConfigurationError, match=r"ca\.crt: no certificate"):
        make_client(True, False, ConnectionOptions(ca=(str(file),)), Options())
    with pytest.raises(ConfigurationError, match=r"ca\.crt: not a client certificate"):
        make_client(True, False, ConnectionOptions(client=((str(file), ""),)), Options())


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
    with make_client(False, True, ConnectionOptions(), options) as client:
        assert client.timeout == httpx.Timeout(4, connect=3, pool=None)
    with make_client(False, True, ConnectionOptions(connect_timeout=1, idle_timeout=0), options) as client:
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
