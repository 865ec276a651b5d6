"""Registries that stall or drip: other hosts are not slowed, waits are bounded, and closing ends them at once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from lazylayer.api.byteranges import ByteRange
from lazylayer.errors import UnavailableError
from lazylayer_resolver_registry.connections import ConnectionOptions
from lazylayer_resolver_registry.options import Options
from lazylayer_resolver_registry.transport import Transport
from lazylayer_testing.registry import Fault, Gate, ScriptedRegistry
from lazylayer_testing.servers.certificates import Authority

from .client import Client, fetched

SOON = 5.0
"""Seconds within which lazylayer must end."""


@contextmanager
def in_threads(count: int, call: Callable[[], object]) -> Iterator[list[Future[object]]]:
    with ThreadPoolExecutor(count) as pool:
        yield [pool.submit(call) for _ in range(count)]


def test_a_stalled_host_takes_no_connections_of_others(registry: ScriptedRegistry, storage: ScriptedRegistry) -> None:
    client = Client(registry, connections=4, idle_timeout=20, attempts=1)
    other = Client(storage)
    other.plugin = client.plugin
    gate = Gate()
    registry.script(Fault(hold=gate), path="*/blobs/*", times=None)
    stalled = client.source()
    healthy = other.source()
    with in_threads(8, lambda: fetched(stalled, [ByteRange(0, 10)])) as readers:
        gate.wait_for(4)
        started = time.monotonic()
        assert other.read(healthy, (0, 100_000))
        assert time.monotonic() - started < 2
        assert gate.held == 4, "connections to one host are bounded"
        gate.release()
        assert all(reader.result(20) for reader in readers)
    client.plugin.lazylayer_close()


def test_a_wait_for_a_connection_ends(registry: ScriptedRegistry) -> None:
    client = Client(registry, connections=1, idle_timeout=0.5, attempts=1)
    registry.script(Fault(drip=(1000, 0.1)), path="*/blobs/*", times=None)
    source = client.source()
    with in_threads(2, lambda: fetched(source, [ByteRange(0, 20_000)])) as readers:
        outcomes = [reader.exception(20) for reader in readers]
    assert outcomes.count(None) == 1
    assert [str(each) for each in outcomes if each] == [
        f"GET {registry.url}/v2/tests/image/blobs/{client.layer.digest}: no free connection to {registry.host} "
        "within 0.5 s (1 in use)"
    ]
    client.plugin.lazylayer_close()


@pytest.mark.parametrize("path", ["*/manifests/*", "*/blobs/*"])
@pytest.mark.parametrize("fault", [Fault(drip=(1, 0.05)), Fault(drip_head=(1, 0.05))], ids=["body", "head"])
def test_a_drip_is_abandoned(registry: ScriptedRegistry, path: str, fault: Fault) -> None:
    client = Client(registry, idle_timeout=0.4, attempts=2)
    client.add_image()
    registry.script(fault, path=path, times=None)
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"fewer than 1024 bytes within 0\.4 s"):
        if "blobs" in path:
            fetched(client.source(), [ByteRange(0, 100_000)])
        else:
            client.image()
    assert time.monotonic() - started < SOON
    client.plugin.lazylayer_close()


def test_the_next_host_is_asked_after_a_drip(registry: ScriptedRegistry, storage: ScriptedRegistry) -> None:
    hosts = [{"host": registry.host, "server": registry.url, "mirrors": [{"url": storage.url}]}]
    storage.content = registry.content
    client = Client(registry, {"hosts": hosts}, idle_timeout=0.4)
    storage.script(Fault(drip=(1, 0.05)), path="*/blobs/*", times=None)
    assert client.read(client.source(), (0, 100_000))
    client.plugin.lazylayer_close()


def test_a_slow_reader_is_not_a_slow_server(registry: ScriptedRegistry) -> None:
    client = Client(registry, idle_timeout=0.3, attempts=1)
    pieces = client.source().fetch([ByteRange(0, 300_000)])
    read = 0
    for _, piece in pieces:
        if read < 200_000:
            time.sleep(0.1)
        read += len(piece)
    assert read == 300_000
    client.plugin.lazylayer_close()


FAULTS = {
    "silent": Fault(delay=60),
    "stalled": Fault(stall_after=100, stall_seconds=60),
    "dripping": Fault(drip=(100, 0.05)),
    "dripping head": Fault(drip_head=(1, 0.3)),
}


@pytest.mark.parametrize("path", ["*/manifests/*", "*/blobs/*"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_closing_ends_requests_at_once(registry: ScriptedRegistry, fault: Fault, path: str) -> None:
    client = Client(registry, idle_timeout=60)
    client.add_image()
    registry.script(fault, path=path, times=None)
    source = client.source()
    ask = client.image if "manifests" in path else lambda: fetched(source, [ByteRange(0, 99_000)])
    with in_threads(3, ask) as asking:
        while len(registry.requests) < 3:
            time.sleep(0.01)
        time.sleep(0.2)
        started = time.monotonic()
        client.plugin.lazylayer_close()
        for each in asking:
            with pytest.raises(UnavailableError, match="lazylayer is ending"):
                each.result(SOON)
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("used", [False, True])
def test_an_interrupted_plugin_asks_nothing_any_more(registry: ScriptedRegistry, used: bool) -> None:
    client = Client(registry)
    client.add_image()
    if used:
        assert client.image()
        registry.forget_requests()
    client.plugin.lazylayer_interrupt()
    with pytest.raises(UnavailableError, match="lazylayer is ending"):
        client.image()
    assert registry.requests == []
    client.plugin.lazylayer_close()


def test_closing_ends_waits_for_a_connection(registry: ScriptedRegistry) -> None:
    client = Client(registry, idle_timeout=60, connections=1)
    gate = Gate()
    registry.script(Fault(hold=gate), times=None)
    with in_threads(3, lambda: fetched(client.source(), [ByteRange(0, 10)])) as readers:
        gate.wait_for(1)
        client.plugin.lazylayer_close()
        for each in readers:
            with pytest.raises(UnavailableError, match="lazylayer is ending"):
                each.result(SOON)


def test_closing_ends_silent_tls_connections(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = authority.server_context()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ready = threading.Event()
        ended = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) as secure:
                secure.recv(65536)
                ready.set()
                ended.wait(30)

        server = threading.Thread(target=serve)
        server.start()
        transport = Transport(Options(idle_timeout=60))
        trusting = ConnectionOptions(ca=(str(authority.certificate),))

        def ask() -> None:
            with transport.send("GET", httpx.URL(f"https://127.0.0.1:{port}/v2/"), {}, connection=trusting):
                pass

        with in_threads(1, ask) as (asking,):
            assert ready.wait(10)
            transport.close()
            with pytest.raises(UnavailableError, match="lazylayer is ending"):
                asking.result(SOON)
        ended.set()
        server.join(10)


def test_a_closed_transport_opens_nothing(registry: ScriptedRegistry) -> None:
    transport = Transport(Options())
    transport.close()
    with (
        pytest.raises(UnavailableError, match="lazylayer is ending"),
        transport.send("GET", httpx.URL(registry.url), {}),
    ):
        pass
    assert registry.requests == []
