from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from loguru import logger

from lazylayer.api.cache import Cache, CachedValue, CacheStatistics, ValueInMemory
from lazylayer.fetching.chunkstore import ChunkStore
from lazylayer.plugin.guardedcache import GuardedCache
from lazylayer_testing.synthetic import DictCache

DATA = bytes(range(256)) * 16
DIGEST = hashlib.sha256(DATA).digest()
KEY = f"sha256:{DIGEST.hex()}"
BAD = b"wrong" + DATA[5:]


class RecordedValue(ValueInMemory):
    __slots__ = ("cache", "closed")

    def __init__(self, cache: RecordingCache, data: bytes) -> None:
        super().__init__(data)
        self.cache = cache
        self.closed = False

    def read(self, offset: int, size: int) -> bytes:
        assert not self.closed
        self.cache.reads.append((offset, size))
        self.cache.before_read()
        return super().read(offset, size)

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class RecordingCache(DictCache):
    """Counts what is asked of it, and hands out values that must not be read once they are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[RecordedValue] = []
        self.reads: list[tuple[int, int]] = []
        self.refuses = False

    def before_read(self) -> None:
        pass

    def open(self, key: str) -> CachedValue | None:
        data = self.get(key)
        if data is None:
            return None
        self.opened.append(RecordedValue(self, data))
        return self.opened[-1]

    def put(self, key: str, data: bytes) -> None:
        if not self.refuses:
            self.values.setdefault(key, data)  # as caches do: a value that is there is left as it is


@pytest.fixture
def cache() -> RecordingCache:
    return RecordingCache()


@pytest.fixture
def store(cache: RecordingCache) -> Iterator[ChunkStore]:
    store = ChunkStore(cache)
    yield store
    store.close()
    assert all(value.closed for value in cache.opened)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    real = hashlib.sha256

    def counting(data: bytes) -> object:
        sizes.append(len(data))
        return real(data)

    monkeypatch.setattr(hashlib, "sha256", counting)
    return sizes


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    logger.enable("lazylayer")
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)
    logger.disable("lazylayer")


# --- reading ---------------------------------------------------------------------------------------


def test_chunk_that_is_not_here(store: ChunkStore) -> None:
    assert store.read(KEY, DIGEST, len(DATA), 0, 10) is None
    assert not store.has(KEY, DIGEST)


def test_chunk_of_an_earlier_process_is_verified_once_for_all_its_reads(
    cache: RecordingCache, store: ChunkStore, hashed: list[int]
) -> None:
    cache.values[KEY] = DATA
    assert store.has(KEY, DIGEST)
    parts = [store.read(KEY, DIGEST, len(DATA), offset, 100) for offset in range(0, len(DATA), 100)]
    assert b"".join(part or b"" for part in parts) == DATA
    assert hashed == [len(DATA)]
    assert len(cache.opened) == 1


def test_chunk_of_this_process_is_not_verified_again(
    cache: RecordingCache, store: ChunkStore, hashed: list[int]
) -> None:
    store.keep(KEY, DATA)
    assert store.read(KEY, DIGEST, len(DATA), 5, 10) == DATA[5:15]
    assert hashed == []
    assert cache.reads == [(5, 10)]


def test_bytes_behind_the_end_are_not_there(store: ChunkStore) -> None:
    store.keep(KEY, DATA)
    assert store.read(KEY, DIGEST, len(DATA), len(DATA) - 3, 10) == DATA[-3:]
    assert store.read(KEY, DIGEST, len(DATA), len(DATA), 10) == b""


# --- what is not believed --------------------------------------------------------------------------


def test_damaged_chunk_is_dropped(cache: RecordingCache, store: ChunkStore, warnings: list[str]) -> None:
    cache.values[KEY] = BAD
    assert store.read(KEY, DIGEST, len(DATA), 100, 10) is None
    assert KEY not in cache.values
    assert not store.has(KEY, DIGEST)
    assert "is damaged and is fetched again" in warnings[0]


def test_chunk_that_another_process_put_after_an_eviction_is_verified(
    cache: RecordingCache,
) -> None:
    cache.refuses = True
    store = ChunkStore(cache, homeless_bytes=0)
    store.keep(KEY, DATA)
    store.keep("sha256:other", DATA)  # drives the first one out of memory
    cache.values[KEY] = BAD
    assert store.read(KEY, DIGEST, len(DATA), 0, 10) is None


def test_damaged_chunk_is_replaced_by_the_one_that_was_fetched(cache: RecordingCache, store: ChunkStore) -> None:
    cache.values[KEY] = BAD
    store.keep(KEY, DATA)
    assert cache.values[KEY] == DATA
    assert store.read(KEY, DIGEST, len(DATA), 0, 10) == DATA[:10]


def test_chunk_without_digest_is_believed_from_this_process_only(
    cache: RecordingCache, store: ChunkStore, warnings: list[str]
) -> None:
    cache.values["blob:chunk1"] = BAD
    assert not store.has("blob:chunk1", b"")
    assert store.read("blob:chunk1", b"", len(DATA), 0, 10) is None
    assert cache.values["blob:chunk1"] == BAD, "another process may believe it"
    store.keep("blob:chunk1", DATA)
    assert store.has("blob:chunk1", b"")
    assert store.read("blob:chunk1", b"", len(DATA), 0, 10) == DATA[:10]
    assert not warnings


def test_only_so_many_are_remembered_as_put(cache: RecordingCache, hashed: list[int]) -> None:
    store = ChunkStore(cache, written_chunks=2)
    chunks = {f"sha256:{hashlib.sha256(data).hexdigest()}": data for data in (b"one", b"two", b"three")}
    hashed.clear()
    for key, data in chunks.items():
        store.keep(key, data)
    for key, data in chunks.items():
        assert store.read(key, bytes.fromhex(key[7:]), len(data), 0, 10) == data
    assert len(hashed) == 1


# --- failing caches --------------------------------------------------------------------------------


class FailingCache(Cache):
    def get(self, key: str) -> bytes | None:
        raise RuntimeError("broken")

    def put(self, key: str, data: bytes) -> None:
        raise RuntimeError("broken")

    def remove(self, key: str) -> None:
        raise RuntimeError("broken")


def test_cache_that_raises_is_no_reason_for_a_failed_read(warnings: list[str]) -> None:
    store = ChunkStore(GuardedCache("cache_failing", FailingCache()))
    assert store.read(KEY, DIGEST, len(DATA), 0, 10) is None
    assert not store.has(KEY, DIGEST)
    store.keep(KEY, DATA)
    assert store.read(KEY, DIGEST, len(DATA), 0, 10) == DATA[:10]
    store.forget(KEY)
    assert store.read(KEY, DIGEST, len(DATA), 0, 10) is None
    store.close()
    assert warnings


def test_value_that_cannot_be_read_any_more_is_dropped(
    cache: RecordingCache, store: ChunkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.keep(KEY, DATA)
    assert store.read(KEY, DIGEST, len(DATA), 0, 10) == DATA[:10]

    def fail() -> None:
        raise OSError("somebody changed the file")

    monkeypatch.setattr(cache, "before_read", fail)
    assert store.read(KEY, DIGEST, len(DATA), 0, 10) is None
    assert KEY not in cache.values
    assert cache.opened[0].closed


def test_chunk_that_the_cache_did_not_take_is_kept_in_memory(cache: RecordingCache, store: ChunkStore) -> None:
    cache.refuses = True
    store.keep(KEY, DATA)
    assert store.has(KEY, DIGEST)
    assert store.read(KEY, DIGEST, len(DATA), 5, 10) == DATA[5:15]


def test_memory_for_what_the_cache_did_not_take_is_bounded(
    cache: RecordingCache,
) -> None:
    store = ChunkStore(cache, homeless_bytes=3 * len(DATA))
    cache.refuses = True
    for number in range(10):
        store.keep(f"sha256:{number}", DATA)
    assert [number for number in range(10) if store.has(f"sha256:{number}", DIGEST)] == [7, 8, 9]


# --- open chunks -----------------------------------------------------------------------------------


def test_only_so_many_chunks_are_open(
    cache: RecordingCache,
) -> None:
    store = ChunkStore(cache, open_chunks=3)
    for number in (0, 1, 2, 0, 3, 0):
        store.keep(f"sha256:{number}", DATA)
        assert store.read(f"sha256:{number}", DIGEST, len(DATA), 0, 10) == DATA[:10]
    assert sum(not value.closed for value in cache.opened) == 3
    assert cache.opened[1].closed, "the one that was not used for longest"


def test_chunk_is_not_closed_under_its_reader(cache: RecordingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for end in ("forget", "close"):
        store = ChunkStore(cache)
        store.keep(KEY, DATA)
        reading, go_on = threading.Event(), threading.Event()

        def wait(reading: threading.Event = reading, go_on: threading.Event = go_on) -> None:
            reading.set()
            assert go_on.wait(20)

        monkeypatch.setattr(cache, "before_read", wait)
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(store.read, KEY, DIGEST, len(DATA), 0, 10)
            assert reading.wait(20)
            if end == "forget":
                store.forget(KEY)
            else:
                store.close()
            assert not cache.opened[-1].closed
            go_on.set()
            assert future.result() == DATA[:10]
        assert cache.opened[-1].closed
        store.close()


def test_many_threads() -> None:
    cache = RecordingCache()
    store = ChunkStore(cache, open_chunks=2)
    chunks = [bytes([number]) * 1000 for number in range(6)]
    digests = [hashlib.sha256(data).digest() for data in chunks]

    def work(thread: int) -> None:
        for step in range(300):
            number = (thread + step * 7) % len(chunks)
            key, digest = f"sha256:{digests[number].hex()}", digests[number]
            found = store.read(key, digest, 1000, 10, 20)
            assert found in (None, chunks[number][:20])
            if found is None:
                store.keep(key, chunks[number])
            elif step % 50 == 0:
                store.forget(key)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    store.close()
    assert all(value.closed for value in cache.opened)


# --- the rest --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statistics", "room"),
    [
        (None, True),
        (CacheStatistics(0, 0, 0), True),
        (CacheStatistics(5, 90, 100), True),
        (CacheStatistics(0, 0, 99), False),
    ],
)
def test_room_is_that_of_an_empty_cache(
    cache: RecordingCache, statistics: CacheStatistics | None, room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "statistics", lambda: statistics)
    assert ChunkStore(cache).room_for(100) is room


def test_open_chunks_take_up_a_part_of_the_cache_only() -> None:
    class LimitedCache(RecordingCache):
        def statistics(self) -> CacheStatistics | None:
            return CacheStatistics(0, 0, limit=40 * len(DATA))

    cache = LimitedCache()
    store = ChunkStore(cache)
    for number in range(30):
        data = bytes([number]) * len(DATA)
        digest = hashlib.sha256(data).digest()
        key = f"sha256:{digest.hex()}"
        store.keep(key, data)
        assert store.read(key, digest, len(data), 0, 10) == data[:10]
        assert sum(len(value.data) for value in cache.opened if not value.closed) <= 10 * len(DATA)
    assert sum(not value.closed for value in cache.opened) == 10
    store.close()
    assert all(value.closed for value in cache.opened)
