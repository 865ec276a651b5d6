"""However a server fails, a read soon returns the right bytes or an error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lazylayer.errors import LazylayerError
from lazylayer_resolver_registry import transport
from lazylayer_testing.registry import Fault, ScriptedRegistry

from .client import Client

SIZE = 300_000

FAULTS = st.one_of(
    st.builds(Fault, status=st.sampled_from([400, 401, 403, 404, 408, 410, 416, 418, 429, 500, 501, 503, 302, 206])),
    st.builds(Fault, truncate_after=st.integers(0, 5000)),
    st.builds(Fault, reset_after=st.integers(-1, 5000)),
    st.builds(Fault, without_length=st.just(True), truncate_after=st.integers(0, 5000)),
    st.builds(
        Fault,
        ignore_range=st.booleans(),
        first_range_only=st.booleans(),
        one_covering_range=st.booleans(),
        drip=st.just((4096, 0.0)),
    ),
    st.builds(Fault, content_range=st.sampled_from(["", "bytes", "bytes 0-1", "bytes */300000", "bytes 9-1/x"])),
    st.builds(Fault, rewrite=st.just(lambda body: body[: len(body) // 2])),
    st.builds(Fault, headers=st.just({"Content-Type": "multipart/byteranges; boundary=other"})),
    st.builds(Fault, headers=st.sampled_from([{"Content-Length": "1"}, {"Content-Length": "x"}, {"Location": "::"}])),
)
"""All faults except wrong bytes at the right offset, which only digests detect."""


@st.composite
def ranges(draw: st.DrawFn) -> list[tuple[int, int]]:
    points = sorted(draw(st.lists(st.integers(0, SIZE), min_size=2, max_size=12, unique=True)))
    return list(zip(points[: len(points) // 2 * 2 : 2], points[1::2], strict=True))


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ScriptedRegistry, ScriptedRegistry, ScriptedRegistry]]:
    with ScriptedRegistry() as registry, ScriptedRegistry(registry.content) as mirror, ScriptedRegistry() as storage:
        yield registry, mirror, storage


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(st.tuples(st.integers(0, 2), FAULTS), min_size=1, max_size=6),
    wanted=ranges(),
    mirrored=st.booleans(),
    redirected=st.booleans(),
)
@example(
    faults=[(0, Fault(ignore_range=True))] * 6, wanted=[(0, 1), (299_999, 300_000)], mirrored=True, redirected=True
)
def test_bytes_are_right_or_there_is_an_error(
    servers: tuple[ScriptedRegistry, ScriptedRegistry, ScriptedRegistry],
    monkeypatch: pytest.MonkeyPatch,
    faults: list[tuple[int, Fault]],
    wanted: list[tuple[int, int]],
    mirrored: bool,
    redirected: bool,
) -> None:
    monkeypatch.setattr(transport, "_FIRST_PAUSE", 0.0001)
    registry, mirror, storage = servers
    hosts = [{"host": registry.host, "server": registry.url, "mirrors": [{"url": mirror.url}] if mirrored else []}]
    client = Client(registry, {"hosts": hosts}, attempts=4, idle_timeout=2.0)
    for each in servers:
        each.forget_rules()
        each.forget_requests()
    registry._redirect = None
    if redirected:
        registry.redirect_blobs(storage)
    for server, fault in faults:
        servers[server].script(fault)
    try:
        assert client.read(client.source(), *wanted)
    except LazylayerError:
        pass
    finally:
        asked = sum(len(each.requests) for each in servers)
        client.plugin.lazylayer_close()
    assert asked <= 40
