"""Images written to a registry."""

from __future__ import annotations

import io
import random

import pytest

from lazylayer.api.credentials import Credentials
from lazylayer.api.oci import Descriptor, MediaType, Reference, parse_reference, sha256_digest
from lazylayer.errors import BuildError, LazylayerError, UnavailableError
from lazylayer_building import ImageStore
from lazylayer_testing.registry import Fault, ScriptedRegistry, TokenAuthentication

from .client import REPOSITORY, Client

DATA = random.Random(2).randbytes(40_000_000)


@pytest.fixture
def store(client: Client) -> ImageStore:
    store = client.plugin.lazylayer_open_store(reference(client), client.keychain)
    assert store is not None
    return store


def reference(client: Client) -> Reference:
    return parse_reference(client.registry.reference(REPOSITORY, "new"))


def descriptor(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", sha256_digest(data), len(data))


def test_a_blob_arrives_whole(store: ImageStore, registry: ScriptedRegistry) -> None:
    wanted = descriptor(DATA)
    assert not store.has_blob(wanted.digest, wanted.size)
    store.put_blob(wanted, io.BytesIO(DATA))
    assert store.has_blob(wanted.digest, wanted.size)
    assert registry.content.blob(REPOSITORY, wanted.digest) == DATA


def test_an_empty_blob_is_a_blob(store: ImageStore, registry: ScriptedRegistry) -> None:
    store.put_blob(descriptor(b""), io.BytesIO(b""))
    assert registry.content.blob(REPOSITORY, sha256_digest(b"")) == b""


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_a_failing_request_is_sent_again(store: ImageStore, registry: ScriptedRegistry, method: str) -> None:
    registry.script(Fault(status=503), method=method, path="*/uploads/*", times=2)
    store.put_blob(descriptor(DATA), io.BytesIO(DATA))
    assert registry.content.blob(REPOSITORY, sha256_digest(DATA)) == DATA


def test_a_chunk_whose_answer_is_lost_is_not_sent_twice(store: ImageStore, registry: ScriptedRegistry) -> None:
    registry.script(Fault(reset_after=-1), method="PATCH", path="*/uploads/*", skip=1)
    store.put_blob(descriptor(DATA), io.BytesIO(DATA))
    assert registry.content.blob(REPOSITORY, sha256_digest(DATA)) == DATA


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_forgotten_upload_is_begun_again(store: ImageStore, registry: ScriptedRegistry, method: str) -> None:
    registry.script(Fault(status=404), method=method, path="*/uploads/*", skip=1 if method == "PATCH" else 0)
    store.put_blob(descriptor(DATA), io.BytesIO(DATA))
    assert registry.content.blob(REPOSITORY, sha256_digest(DATA)) == DATA
    assert len([each for each in registry.requests if each.method == "POST"]) == 2


def test_a_registry_that_forgets_every_upload_is_given_up(store: ImageStore, registry: ScriptedRegistry) -> None:
    registry.script(Fault(status=404), method="PATCH", path="*/uploads/*", times=None)
    with pytest.raises(UnavailableError, match="lost the upload"):
        store.put_blob(descriptor(DATA), io.BytesIO(DATA))
    assert registry.content.blob(REPOSITORY, sha256_digest(DATA)) is None


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", DATA[:-1] + b"x"])
def test_data_that_is_not_as_promised_is_refused(store: ImageStore, registry: ScriptedRegistry, data: bytes) -> None:
    if data == DATA:
        data = DATA[:-1] + b"y"
    with pytest.raises(BuildError):
        store.put_blob(descriptor(DATA), io.BytesIO(data))
    assert registry.content.blob(REPOSITORY, sha256_digest(DATA)) is None


def test_a_manifest_makes_the_image_visible(client: Client, store: ImageStore) -> None:
    client.add_image("old")
    old = client.image("old")
    written = store.put_manifest(reference(client), MediaType.OCI_MANIFEST, old.manifest_bytes)
    assert client.image("new").digest == written.digest == old.digest


def test_a_manifest_whose_blobs_are_missing_is_refused(client: Client, store: ImageStore) -> None:
    missing = sha256_digest(b"missing")
    manifest = b'{"schemaVersion":2,"config":{"mediaType":"x","digest":"%s","size":1},"layers":[]}' % missing.encode()
    with pytest.raises(LazylayerError, match="unknown to registry"):
        store.put_manifest(reference(client), MediaType.OCI_MANIFEST, manifest)


def test_writing_asks_for_the_right_to_write(client: Client, registry: ScriptedRegistry) -> None:
    tokens = TokenAuthentication({"robot": "secret"}, anonymous=False)
    registry.authentication = tokens
    client.credentials = Credentials("robot", "secret")
    store = client.plugin.lazylayer_open_store(reference(client), client.keychain)
    assert store is not None
    store.put_blob(descriptor(b"data"), io.BytesIO(b"data"))
    assert tokens.exchanges[0].scopes == (f"repository:{REPOSITORY}:pull,push",)


def test_an_upload_is_not_sent_to_forbidden_places(store: ImageStore, registry: ScriptedRegistry) -> None:
    registry.script(Fault(status=202, headers={"Location": "ftp://elsewhere/x"}), method="POST", times=None)
    with pytest.raises(UnavailableError, match="refused"):
        store.put_blob(descriptor(b"data"), io.BytesIO(b"data"))


class Trickle(io.BytesIO):
    """A stream that returns a few bytes at a time, as from a network."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 60_000))


def test_a_stream_that_trickles_is_sent_in_large_chunks(store: ImageStore, registry: ScriptedRegistry) -> None:
    store.put_blob(descriptor(DATA), Trickle(DATA))
    assert len([request for request in registry.requests if request.method == "PATCH"]) == 3


def test_a_blob_of_another_repository_is_taken_over(
    client: Client, store: ImageStore, registry: ScriptedRegistry
) -> None:
    there = registry.content.add_blob("tests/other", b"shared")
    assert store.take_blob(there, parse_reference(registry.reference("tests/other")))
    assert store.has_blob(there.digest, there.size)
    assert [request.method for request in registry.requests] == ["POST", "HEAD"]


def test_taking_over_asks_for_the_right_to_read_there(client: Client, registry: ScriptedRegistry) -> None:
    tokens = TokenAuthentication({"robot": "secret"}, anonymous=False)
    registry.authentication = tokens
    client.credentials = Credentials("robot", "secret")
    store = client.plugin.lazylayer_open_store(reference(client), client.keychain)
    assert store is not None
    blobs = [registry.content.add_blob("tests/other", data) for data in (b"one", b"two")]
    for blob in blobs:
        assert store.take_blob(blob, parse_reference(registry.reference("tests/other")))
        assert store.has_blob(blob.digest, blob.size)
    own = f"repository:{REPOSITORY}:pull,push"
    scopes = [exchange.scopes for exchange in tokens.exchanges]
    assert scopes == [(own, "repository:tests/other:pull"), (own,)], "one exchange for all blobs of a repository"


def test_what_may_not_be_read_there_can_still_be_put(client: Client, registry: ScriptedRegistry) -> None:
    """A token server may refuse the whole token because of the other repository."""
    registry.authentication = TokenAuthentication({"robot": "secret"}, anonymous=False)
    registry.script(Fault(status=403), path="/token")
    client.credentials = Credentials("robot", "secret")
    store = client.plugin.lazylayer_open_store(reference(client), client.keychain)
    assert store is not None
    there = registry.content.add_blob("tests/other", b"shared")
    assert not store.take_blob(there, parse_reference(registry.reference("tests/other")))
    store.put_blob(there, io.BytesIO(b"shared"))
    assert registry.content.blob(REPOSITORY, there.digest) == b"shared"


def test_what_cannot_be_taken_over_is_to_be_put(store: ImageStore, registry: ScriptedRegistry) -> None:
    missing = descriptor(b"missing")
    assert not store.take_blob(missing, parse_reference(registry.reference("tests/other")))
    assert [request.method for request in registry.requests] == ["POST", "DELETE"], "no upload is left open"
    registry.forget_requests()
    assert not store.take_blob(missing, parse_reference("elsewhere.test/tests/other:1"))
    assert not store.take_blob(missing, parse_reference("oci:/images/app:1"))
    assert registry.requests == []
    registry.script(Fault(status=405), method="POST")
    assert not store.take_blob(missing, parse_reference(registry.reference("tests/other")))
