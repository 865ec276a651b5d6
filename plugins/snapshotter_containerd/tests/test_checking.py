"""The archives of mounted layers, read once more when all of a layer was fetched."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Descriptor, Digest, Reference, parse_reference
from lazylayer.errors import UnavailableError
from lazylayer_snapshotter_containerd.checking import DiffIdChecker
from lazylayer_snapshotter_containerd.identity import chain_id
from lazylayer_snapshotter_containerd.labels import layer_source_labels

from .conftest import CHECKED, layer_labels

REFERENCE = parse_reference("registry.test/a:1")


def sha256(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


class Blob:
    """A blob in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def fetch(self, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        for each in ranges:
            for start in range(each.start, each.end, 1000):
                yield start, self.data[start : min(start + 1000, each.end)]

    def check(self) -> None:
        pass

    def describe(self) -> str:
        return "memory"

    def close(self) -> None:
        pass


class Registry:
    """Blobs by digest; a reader of one that is missing is told so."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.asked = threading.Semaphore(0)

    def push(self, archive: bytes) -> dict[str, str]:
        """The labels of a layer with this archive."""
        blob = gzip.compress(archive)
        digest = sha256(blob)
        self.blobs[digest] = blob
        return {**layer_labels(digest), **layer_source_labels(REFERENCE, digest, [digest])}

    def open(self, reference: Reference, layer: Descriptor) -> Any:
        assert reference == REFERENCE
        self.asked.release()
        if layer.digest not in self.blobs:
            raise UnavailableError("the registry does not answer")
        return Blob(self.blobs[layer.digest])


@pytest.fixture
def registry() -> Registry:
    return Registry()


def start(service: Any, registry: Registry, complete: threading.Event) -> DiffIdChecker:
    return DiffIdChecker(service.snapshotter, lambda _: complete.is_set(), registry.open, 0.01)


def wait_for(service: Any, name: str, text: str) -> None:
    for _ in range(1000):
        if text in service.client.stat(name).labels.get(CHECKED, ""):
            return
        threading.Event().wait(0.01)
    pytest.fail(f"{name}: {service.client.stat(name).labels}")


def test_the_archives_of_complete_layers_are_checked_and_that_is_recorded(service: Any, registry: Registry) -> None:
    low, high = b"low" * 5000, b"high" * 5000
    chains = [sha256(low), chain_id([sha256(low), sha256(high)])]
    service.prepare_target(chains[0], labels=registry.push(low))
    service.prepare_target(chains[1], chains[0], labels=registry.push(high))
    complete = threading.Event()
    checker = start(service, registry, complete)
    assert not registry.asked.acquire(timeout=0.2), "not all of it is here"
    complete.set()
    wait_for(service, chains[0], f"diff ID {sha256(low)}")
    wait_for(service, chains[1], f"diff ID {sha256(high)}")
    assert registry.asked.acquire(timeout=10)
    assert registry.asked.acquire(timeout=10)
    assert not registry.asked.acquire(timeout=0.2), "once"
    checker.close()
    service.client.prepare("container", chains[1])


@pytest.mark.parametrize("lies", ["lowest", "above"])
def test_a_layer_under_a_chain_id_that_its_archive_does_not_make_is_refused(
    service: Any, registry: Registry, refused: Any, lies: str
) -> None:
    base = sha256(b"the real base")
    parent = ""
    if lies == "above":
        parent = service.prepare_target(sha256(b"low"), labels=registry.push(b"low"))
        base = Digest(chain_id([parent, base]))
    service.prepare_target(base, parent, labels=registry.push(b"the attacker's"))
    service.client.prepare("early", base)
    complete = threading.Event()
    complete.set()
    checker = start(service, registry, complete)
    wait_for(service, base, "refused")
    checker.close()
    with refused("UNAVAILABLE") as error:
        service.client.prepare("late", base)
    assert str(sha256(b"the attacker's")) in error.value.details
    with refused("UNAVAILABLE"):
        service.client.mounts("early")
    service.stop()
    service.start()
    with refused("UNAVAILABLE"):
        service.client.prepare("late", base)


def test_a_blob_that_cannot_be_read_is_tried_again(service: Any, registry: Registry) -> None:
    labels = registry.push(b"archive")
    target = service.prepare_target(sha256(b"archive"), labels=labels)
    held = dict(registry.blobs)
    registry.blobs.clear()
    complete = threading.Event()
    complete.set()
    checker = start(service, registry, complete)
    for _ in range(2):
        assert registry.asked.acquire(timeout=10)
    assert CHECKED not in service.client.stat(target).labels
    registry.blobs |= {digest: gzip.compress(b"damaged on the way") for digest in held}
    assert registry.asked.acquire(timeout=10)
    registry.blobs |= held
    wait_for(service, target, "diff ID")
    checker.close()


def test_a_layer_that_is_removed_while_it_is_read_is_nothing_to_record(service: Any, registry: Registry) -> None:
    target = service.prepare_target(sha256(b"archive"), labels=registry.push(b"archive"))
    complete = threading.Event()
    complete.set()
    before = registry.open

    def open_and_remove(reference: Reference, layer: Descriptor) -> Any:
        service.client.remove(target)
        return before(reference, layer)

    registry.open = open_and_remove  # type: ignore[method-assign]
    checker = start(service, registry, complete)
    assert registry.asked.acquire(timeout=10)
    assert not registry.asked.acquire(timeout=0.2)
    checker.close()
    assert service.client.list() == {}
