"""Ranges of a blob: few requests, redirects, and misbehaving servers."""

from __future__ import annotations

import random

import pytest

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Descriptor
from lazylayer.errors import NotFoundError, UnavailableError
from lazylayer_testing.registry import Fault, Gate, ScriptedRegistry

from .client import REPOSITORY, Client, fetched

TWO = ((10, 5000), (200_000, 250_000))


def test_several_ranges_are_one_request(client: Client, registry: ScriptedRegistry) -> None:
    assert client.read(client.source(), *TWO)
    (request,) = registry.requests
    assert request.ranges == list(TWO)


def test_the_end_of_the_blob_is_read(client: Client) -> None:
    assert client.read(client.source(), (299_999, 300_000))


def test_many_ranges_are_several_requests(client: Client, registry: ScriptedRegistry) -> None:
    assert client.read(client.source(), *((at, at + 10) for at in range(0, 100_000, 1000)))
    assert len(registry.requests) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault(ignore_range=True),
        Fault(first_range_only=True),
        Fault(one_covering_range=True),
        Fault(status=416),
        Fault(status=400),
    ],
    ids=["whole", "first", "covering", "416", "400"],
)
def test_a_host_without_several_ranges_is_asked_for_one(
    client: Client, registry: ScriptedRegistry, fault: Fault
) -> None:
    registry.script(fault, path="*/blobs/*", when=lambda request: len(request.ranges) > 1, times=None)
    source = client.source()
    assert client.read(source, *TWO)
    registry.forget_requests()
    assert client.read(source, *TWO)
    assert [len(request.ranges) for request in registry.requests if request.status == 206][-2:] in ([1, 1], [2])
    assert len(registry.requests) <= 2


def test_several_ranges_can_be_switched_off(registry: ScriptedRegistry) -> None:
    client = Client(registry, multi_range=False)
    assert client.read(client.source(), *TWO)
    assert [request.ranges for request in registry.requests] == [[TWO[0]], [TWO[1]]]
    client.plugin.lazylayer_close()


def test_a_server_without_ranges_works_slowly(client: Client, registry: ScriptedRegistry) -> None:
    registry.script(Fault(ignore_range=True), path="*/blobs/*", times=None)
    assert client.read(client.source(), *TWO)


@pytest.mark.parametrize("fault", [Fault(truncate_after=3000), Fault(reset_after=3000), Fault(reset_after=-1)])
def test_a_broken_answer_goes_on_where_it_stopped(client: Client, registry: ScriptedRegistry, fault: Fault) -> None:
    registry.script(fault, path="*/blobs/*", times=2)
    assert client.read(client.source(), (1000, 11_000))
    assert len(registry.requests) == 3
    last = registry.requests[-1].ranges
    assert last[0][1] == 11_000
    if fault.reset_after != -1:
        assert last[0][0] > 1000


def test_a_request_that_fails_three_ways_is_made_four_times(client: Client, registry: ScriptedRegistry) -> None:
    faults = (Fault(reset_after=-1), Fault(status=429), Fault(status=503))
    for number, fault in enumerate(faults):
        registry.script(fault, path="*/blobs/*", skip=number)
    assert client.read(client.source(), (0, 1000))
    assert len(registry.requests_of("blob")) == 4


def test_an_answer_that_stands_still_is_given_up(registry: ScriptedRegistry) -> None:
    client = Client(registry, idle_timeout=0.2)
    gate = Gate()
    registry.script(Fault(stall_after=2000, stall_until=gate), path="*/blobs/*")
    assert client.read(client.source(), (0, 10_000))
    gate.release()
    assert len(registry.requests) == 2
    client.plugin.lazylayer_close()


def test_an_answer_that_flows_slowly_is_not_cut(registry: ScriptedRegistry) -> None:
    client = Client(registry, idle_timeout=0.3)
    registry.script(Fault(drip=(1000, 0.05)), path="*/blobs/*")
    assert client.read(client.source(), (0, 15_000))
    assert len(registry.requests) == 1
    client.plugin.lazylayer_close()


def test_a_blob_of_another_size_is_refused(client: Client) -> None:
    lying = Descriptor("", client.layer.digest, client.layer.size + 1)
    with pytest.raises(UnavailableError, match="300000 bytes there, expected 300001"):
        fetched(client.source(lying), [ByteRange(0, 10)])


def test_an_unknown_size_is_found_out(client: Client) -> None:
    source = client.source(Descriptor("", client.layer.digest, 0))
    assert source.size == 300_000
    assert client.read(source, (0, 300_000))


@pytest.fixture
def large(client: Client, registry: ScriptedRegistry) -> Client:
    """Return a client with a blob larger than the tail fetched with its size."""
    client.data = random.Random(4).randbytes(1_000_000)
    client.layer = registry.content.add_blob(REPOSITORY, client.data)
    return client


def test_the_end_comes_with_an_unknown_size(large: Client, registry: ScriptedRegistry) -> None:
    """Reading the table of contents at the end costs no further request, once."""
    source = large.source(Descriptor("", large.layer.digest, 0))
    assert source.size == 1_000_000
    assert large.read(source, (900_000, 1_000_000))
    assert [request.range for request in registry.requests] == ["bytes=-327680"]
    assert large.read(source, (900_000, 1_000_000)), "it is not kept"
    assert len(registry.requests) == 2


@pytest.mark.parametrize("ranges", [((0, 10), (500_000, 1_000_000)), ((600_000, 1_000_000),), ((0, 10),)])
def test_what_lies_in_front_of_the_end_is_asked_for(large: Client, ranges: tuple[tuple[int, int], ...]) -> None:
    assert large.read(large.source(Descriptor("", large.layer.digest, 0)), *ranges)


@pytest.mark.parametrize("status", [400, 416, 501])
def test_a_storage_without_ranges_from_the_end(client: Client, registry: ScriptedRegistry, status: int) -> None:
    registry.script(Fault(status=status), when=lambda request: (request.range or "").startswith("bytes=-"))
    source = client.source(Descriptor("", client.layer.digest, 0))
    assert source.size == 300_000
    assert client.read(source, (0, 300_000))


def test_a_blob_that_is_gone_is_not_found(client: Client, registry: ScriptedRegistry) -> None:
    source = client.source()
    registry.content.remove_blob(REPOSITORY, client.layer.digest)
    with pytest.raises(NotFoundError):
        fetched(source, [ByteRange(0, 10)])
    with pytest.raises(NotFoundError):
        source.check()


@pytest.mark.seed(9)
def test_a_check_fails_while_the_blob_cannot_be_read_and_passes_again(
    client: Client, registry: ScriptedRegistry
) -> None:
    source = client.source()
    source.check()
    registry.script(Fault(status=503), path="*/blobs/*")
    with pytest.raises(UnavailableError, match="503"):
        source.check()
    source.check()
    assert len(registry.requests) == 3, "a check is one request, whatever comes of it"
    assert [request.ranges for request in registry.requests] == [[(0, 1)]] * 3
