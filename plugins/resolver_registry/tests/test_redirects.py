"""Redirects of blobs: remembered while they serve, forgotten on any failure, and never given credentials."""

from __future__ import annotations

import pytest

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.credentials import Credentials
from lazylayer.api.oci import Descriptor
from lazylayer.errors import NotFoundError, UnavailableError
from lazylayer_testing.registry import BasicAuthentication, Fault, ScriptedRegistry

from .client import REPOSITORY, Client, fetched

TWO = ((10, 5000), (200_000, 250_000))


def test_a_redirect_is_followed_once(client: Client, registry: ScriptedRegistry, storage: ScriptedRegistry) -> None:
    registry.redirect_blobs(storage)
    source = client.source()
    for at in range(0, 50_000, 10_000):
        assert client.read(source, (at, at + 10_000))
    assert len(registry.requests_of("blob")) == 1
    assert len(storage.requests_of("storage")) == 5
    assert storage.host.partition(":")[0] in source.describe()
    assert "Signature" not in source.describe()


@pytest.mark.seed(9)
def test_an_expired_address_is_resolved_again_in_the_middle(
    client: Client, registry: ScriptedRegistry, storage: ScriptedRegistry
) -> None:
    signer = registry.redirect_blobs(storage)
    source = client.source()
    assert client.read(source, (0, 1000))
    signer.expire()
    assert client.read(source, (1000, 2000))
    signer.expire()
    source.check()
    assert len(registry.requests_of("blob")) == 3


def test_credentials_stay_with_the_registry(
    client: Client, registry: ScriptedRegistry, storage: ScriptedRegistry
) -> None:
    registry.authentication = BasicAuthentication({"robot": "secret"})
    client.credentials = Credentials("robot", "secret")
    registry.redirect_blobs(storage)
    assert client.read(client.source(), *TWO)
    assert any("authorization" in request.headers for request in registry.requests)
    assert not any("authorization" in request.headers for request in storage.requests)


def test_a_redirect_to_a_forbidden_place_is_refused(client: Client, registry: ScriptedRegistry) -> None:
    registry.script(Fault(status=307, headers={"Location": "file:///etc/passwd"}), path="*/blobs/*", times=None)
    with pytest.raises(UnavailableError, match="refused"):
        fetched(client.source(), [ByteRange(0, 10)])


def test_circles_are_noticed(client: Client, registry: ScriptedRegistry) -> None:
    location = f"/v2/{REPOSITORY}/blobs/{client.layer.digest}"
    registry.script(Fault(status=307, headers={"Location": location}), path="*/blobs/*", times=None)
    with pytest.raises(UnavailableError, match="redirect loop"):
        fetched(client.source(), [ByteRange(0, 10)])


@pytest.mark.parametrize("status", [400, 416])
def test_a_storage_without_several_ranges_is_asked_for_one(
    client: Client, registry: ScriptedRegistry, storage: ScriptedRegistry, status: int
) -> None:
    registry.redirect_blobs(storage)
    storage.script(Fault(status=status), path="/storage/*", when=lambda request: len(request.ranges) > 1, times=None)
    source = client.source()
    assert client.read(source, *TWO)
    storage.forget_requests()
    assert client.read(source, *TWO)
    assert [request.ranges for request in storage.requests] == [[TWO[0]], [TWO[1]]]


def test_an_object_that_the_storage_lost_is_not_found(
    client: Client, registry: ScriptedRegistry, storage: ScriptedRegistry
) -> None:
    registry.redirect_blobs(storage)
    storage.script(Fault(status=404), path="/storage/*", times=None)
    with pytest.raises(NotFoundError):
        fetched(client.source(), [ByteRange(0, 10)])


# --- targets that die ------------------------------------------------------------------------------

DEAD = "http://127.0.0.1:1/storage/gone?Signature=x"
FAILURES = [
    Fault(status=500),
    Fault(status=503),
    Fault(status=429),
    Fault(status=418),
    Fault(reset_after=-1),
    Fault(reset_after=100),
    Fault(truncate_after=100),
]
IDS = ["500", "503", "429", "418", "reset", "reset midway", "truncated"]


def test_a_target_that_never_served_is_not_remembered(
    client: Client, registry: ScriptedRegistry, storage: ScriptedRegistry
) -> None:
    registry.redirect_blobs(storage)
    registry.script(Fault(status=307, headers={"Location": DEAD}), path="*/blobs/*")
    assert client.read(client.source(), (0, 10_000))
    assert len(registry.requests_of("blob")) == 2


def test_a_dead_target_costs_one_read_and_not_the_next(registry: ScriptedRegistry, storage: ScriptedRegistry) -> None:
    client = Client(registry, attempts=1)
    registry.redirect_blobs(storage)
    registry.script(Fault(status=307, headers={"Location": DEAD}), path="*/blobs/*")
    source = client.source()
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        fetched(source, [ByteRange(0, 10)])
    assert client.read(source, (0, 10_000))
    client.plugin.lazylayer_close()


@pytest.mark.parametrize("fault", FAILURES, ids=IDS)
def test_a_target_that_dies_is_forgotten_and_the_registry_asked_again(
    client: Client, registry: ScriptedRegistry, storage: ScriptedRegistry, fault: Fault
) -> None:
    with ScriptedRegistry() as dying:
        registry.redirect_blobs(dying)
        source = client.source()
        assert client.read(source, (0, 10_000))
        dying.script(fault, path="/storage/*", times=None)
        registry.redirect_blobs(storage)
        assert client.read(source, (10_000, 20_000))
        assert len(registry.requests_of("blob")) == 2
        assert len(dying.requests) == 2
    assert client.read(source, (20_000, 30_000)), "the new target is remembered"
    assert len(registry.requests_of("blob")) == 2


def test_a_target_that_is_gone_is_forgotten(
    client: Client, registry: ScriptedRegistry, storage: ScriptedRegistry
) -> None:
    with ScriptedRegistry() as dying:
        registry.redirect_blobs(dying)
        source = client.source()
        assert client.read(source, (0, 10_000))
    registry.redirect_blobs(storage)
    assert client.read(source, (10_000, 20_000))
    assert len(registry.requests_of("blob")) == 2


def test_a_target_that_died_before_the_size_was_known(client: Client, registry: ScriptedRegistry) -> None:
    registry.script(Fault(status=307, headers={"Location": DEAD}), path="*/blobs/*")
    unknown = Descriptor("", client.layer.digest, 0)
    source = client.source(unknown)
    assert source.size == 300_000
    assert client.read(source, (0, 10_000))


def test_a_target_of_wrong_bytes_is_forgotten(
    client: Client, registry: ScriptedRegistry, storage: ScriptedRegistry
) -> None:
    registry.redirect_blobs(storage)
    source = client.source()
    assert client.read(source, (0, 10_000))
    source.doubt(ValueError("wrong digest"))
    assert client.read(source, (10_000, 20_000))
    assert len(registry.requests_of("blob")) == 2


def test_a_target_that_stays_dead_is_an_error_and_the_next_read_asks_again(
    registry: ScriptedRegistry, storage: ScriptedRegistry
) -> None:
    client = Client(registry, attempts=2)
    registry.redirect_blobs(storage)
    storage.script(Fault(status=503), path="/storage/*", times=4)
    source = client.source()
    with pytest.raises(UnavailableError, match="503"):
        fetched(source, [ByteRange(0, 10)])
    with pytest.raises(UnavailableError, match="503"):
        fetched(source, [ByteRange(0, 10)])
    assert client.read(source, (0, 10_000))
    client.plugin.lazylayer_close()
