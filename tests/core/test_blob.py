"""Reads of a blob: caching, sharing, lazy opening, and sources that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import sha256_digest
from lazylayer.api.sources import BlobSource
from lazylayer.errors import FormatError, NotFoundError, UnavailableError
from lazylayer.fetching.blob import Blob
from lazylayer.fetching.opening import Opening
from lazylayer.plugin.guardedcache import GuardedCache
from lazylayer_testing.synthetic import DictCache, MemorySource, make_blob

DATA = bytes(range(256)) * 40


def test_a_range_is_fetched_once_and_then_cached() -> None:
    source = MemorySource(DATA)
    blob = Blob(lambda: source, sha256_digest(DATA), len(DATA))
    opening = Opening(blob, DictCache())
    assert opening.read(100, 50) == DATA[100:150]
    assert opening.read(100, 50) == DATA[100:150]
    assert source.asked == [[ByteRange(100, 150)]]
    assert (opening.seen.total, blob.network_bytes, blob.requests) == (50, 50, 1)


def test_a_cached_range_needs_no_source_at_all() -> None:
    ranges = DictCache()
    make_blob(DATA, ranges=ranges).read(0, 10)

    def away() -> BlobSource:
        raise UnavailableError("the registry is away")

    opening = Opening(Blob(away, sha256_digest(DATA), 0), ranges)
    with pytest.raises(UnavailableError):
        _ = opening.size
    first = Opening(Blob(lambda: MemorySource(DATA), sha256_digest(DATA), 0), ranges)
    assert first.size == len(DATA)
    assert f"{sha256_digest(DATA)}:size" not in ranges.values, "a source may lie"
    first.confirm()
    assert opening.size == len(DATA), "the size was remembered with the ranges"
    assert opening.read(0, 10) == DATA[:10]
    assert opening.seen.total == 10


def test_closing_does_not_wait_for_an_opening_that_hangs() -> None:
    began, go_on = threading.Event(), threading.Event()
    source = MemorySource(DATA)

    def open_slowly() -> BlobSource:
        began.set()
        assert go_on.wait(30)
        return source

    blob = Blob(open_slowly, sha256_digest(DATA), len(DATA))
    opening = threading.Thread(target=blob.source)
    opening.start()
    assert began.wait(30)
    closing = threading.Thread(target=blob.close)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    assert not source.closed
    go_on.set()
    opening.join(30)
    assert source.closed


def test_readers_of_the_same_range_share_one_request() -> None:
    source = MemorySource(DATA)
    source.gate.clear()
    blob = make_blob(DATA, source)
    started = threading.Barrier(9)

    def read() -> bytes:
        started.wait()
        return blob.read(10, 20)

    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(read) for _ in range(8)]
        started.wait()
        source.gate.set()
        assert {future.result() for future in futures} == {DATA[10:30]}
    assert len(source.asked) == 1


def test_an_error_reaches_all_who_wait_and_is_not_remembered() -> None:
    source = MemorySource(DATA)
    source.fail = lambda _: NotFoundError("gone")
    blob = make_blob(DATA, source)
    with pytest.raises(NotFoundError):
        blob.read(0, 5)
    source.fail = lambda _: None
    assert blob.read(0, 5) == DATA[:5]


@pytest.mark.parametrize(("offset", "size"), [(-1, 5), (0, len(DATA) + 1), (len(DATA), 1), (5, -1)])
def test_ranges_outside_the_blob_are_refused(offset: int, size: int) -> None:
    with pytest.raises(FormatError):
        make_blob(DATA).read(offset, size)


def test_bad_cached_ranges_can_be_forgotten() -> None:
    ranges = DictCache()
    make_blob(DATA, ranges=ranges).read(0, 10)
    key = next(key for key in ranges.values if not key.endswith(":size"))
    ranges.values[key] = b"0123456789"
    source = MemorySource(DATA)
    blob = make_blob(DATA, source, ranges)
    assert blob.read(0, 10) == b"0123456789"
    wrong = FormatError("wrong")
    assert blob.distrust(wrong)
    assert blob.read(0, 10) == DATA[:10]
    asked = len(source.asked)
    assert not blob.distrust(wrong), "they came from the only source"
    assert blob.read(0, 10) == DATA[:10]
    assert len(source.asked) == asked + 1, "what proved bad is in no cache"
    assert not blob.distrust(wrong) and not blob.distrust(wrong)


class Misbehaving(BlobSource):
    def __init__(self, pieces: list[tuple[int, bytes]]) -> None:
        self.size = len(DATA)
        self.pieces = pieces

    def fetch(self, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        yield from self.pieces

    def check(self) -> None: ...


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [(0, DATA[:5])],
        [(0, DATA[:11])],
        [(1, DATA[1:11])],
        [(0, DATA[:5]), (6, DATA[6:10])],
        [(0, DATA[:10]), (10, DATA[10:11])],
        [(5, DATA[5:10]), (0, DATA[:5])],
    ],
)
def test_a_source_that_sends_the_wrong_bytes_is_found_out(pieces: list[tuple[int, bytes]]) -> None:
    with pytest.raises(UnavailableError):
        make_blob(DATA, Misbehaving(pieces)).read(0, 10)


def test_several_ranges_stream_in_order() -> None:
    source = MemorySource(DATA, piece=7)
    blob = Blob(lambda: source, sha256_digest(DATA), len(DATA))
    got = dict(blob.stream([ByteRange(0, 20), ByteRange(50, 61)]))
    assert b"".join(got.values()) == DATA[:20] + DATA[50:61]
    assert blob.network_bytes == 31


def test_a_wrong_size_in_the_cache_is_forgotten_with_what_is_distrusted() -> None:
    ranges = DictCache()
    ranges.put(f"{sha256_digest(DATA)}:size", b"77")
    opening = Opening(Blob(lambda: MemorySource(DATA), sha256_digest(DATA), 0), ranges)
    assert opening.size == 77
    assert opening.distrust(FormatError("no footer"))
    assert opening.size == len(DATA)
    opening.confirm()
    assert ranges.get(f"{sha256_digest(DATA)}:size") == b"%d" % len(DATA)


class BrokenCache(DictCache):
    def get(self, key: str) -> bytes | None:
        raise RuntimeError("broken")

    def put(self, key: str, data: bytes) -> None:
        raise RuntimeError("broken")

    def remove(self, key: str) -> None:
        raise RuntimeError("broken")

    def close(self) -> None:
        raise RuntimeError("broken")


def test_a_cache_of_ranges_that_raises_fails_no_opening() -> None:
    source = MemorySource(DATA)
    ranges = GuardedCache("cache_broken", BrokenCache())
    opening = Opening(Blob(lambda: source, sha256_digest(DATA), 0), ranges)
    assert opening.read(0, 10) == DATA[:10]
    assert opening.recall("anything") is None
    assert not opening.distrust(FormatError("wrong"))
    ranges.close()
