"""Measure the cost of a cache per read: the shipped caches, compared with plain files.

`plain files` writes a file and renames it, and reads it whole, without name, checksum, limit or order
of use: what no cache on this file system can do better. The chunk store is what a warm read of 128 KiB
costs through the core.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lazylayer.api.cache import Cache, CachedValue, ValueInMemory
from lazylayer.fetching.chunkstore import ChunkStore
from lazylayer_cache_dir import DirectoryCache
from lazylayer_cache_memory import MemoryCache
from suite.bench import Bench, Workload

__all__ = ["WORKLOADS"]

_CHUNK = 50_000
_LARGE = 4 * 1024 * 1024
_READ = 128 * 1024
_CALLS = 400
_LIMIT = 2 * 1024**3
_PLAIN = "plain files"


class _PlainFiles(Cache):
    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)
        directory.mkdir()

    def get(self, key: str) -> bytes | None:
        fd = os.open(f"{self._directory}/{key}", os.O_RDONLY)
        try:
            return os.read(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)

    def put(self, key: str, data: bytes) -> None:
        path = f"{self._directory}/{key}"
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, data)
        os.close(fd)
        os.rename(f"{path}.new", path)  # noqa: PTH104 - as fast as can be

    def open(self, key: str) -> CachedValue:
        return ValueInMemory(self.get(key) or b"")


def _measure(bench: Bench) -> None:
    with bench.scratch() as scratch:
        caches = {
            _PLAIN: _PlainFiles(scratch / "plain"),
            "cache_dir": DirectoryCache(scratch / "cache", max_bytes=_LIMIT),
            "cache_memory": MemoryCache(max_bytes=_LIMIT),
        }
        stores = {name: ChunkStore(cache) for name, cache in caches.items() if name != _PLAIN}
        small = DirectoryCache(scratch / "small", max_bytes=_CALLS * _CHUNK)
        names = _keys()
        _fill(small, list(itertools.islice(names, _CALLS)))
        for number in bench.runs():
            for name in bench.alternate(list(caches), number):
                _measure_values(bench, name, caches[name], list(itertools.islice(names, _CALLS)))
                if name in stores:
                    _measure_store(bench, name, caches[name], stores[name])
            leaving = _fill(small, list(itertools.islice(names, _CALLS)))
            bench.record("put 50 kB where one must leave", "cache_dir", leaving, "s")
        small.close()
        for store in stores.values():
            store.close()


def _fill(cache: Cache, keys: list[str]) -> float:
    """Return the seconds of one put."""
    data = random.Random(0).randbytes(_CHUNK)
    return _seconds(lambda key: cache.put(key, data), keys)


def _keys() -> Iterator[str]:
    return (f"sha256:{hashlib.sha256(str(number).encode()).hexdigest()}" for number in itertools.count())


def _seconds(action: Callable[[str], object], keys: list[str]) -> float:
    start = time.perf_counter()
    for key in keys:
        action(key)
    return (time.perf_counter() - start) / len(keys)


def _measure_values(bench: Bench, name: str, cache: Cache, keys: list[str]) -> None:
    def open_and_read(key: str) -> None:
        value = cache.open(key)
        assert value is not None
        value.read(0, _CHUNK)
        value.close()

    bench.record("put 50 kB", name, _fill(cache, keys), "s")
    bench.record("get 50 kB", name, _seconds(cache.get, keys), "s")
    bench.record("open, read, close 50 kB", name, _seconds(open_and_read, keys), "s")


def _measure_store(bench: Bench, name: str, cache: Cache, store: ChunkStore) -> None:
    data = random.Random(0).randbytes(_LARGE)
    digest = hashlib.sha256(data).digest()
    key = f"sha256:{digest.hex()}"
    cache.put(key, data)
    offsets = itertools.cycle(range(0, _LARGE, _READ))
    seconds = _seconds(lambda each: store.read(each, digest, _CHUNK, next(offsets), _READ), [key] * _CALLS)
    bench.record("read 128 KiB of an open 4 MiB chunk", name, seconds, "s")


WORKLOADS = (
    Workload(
        name="caches",
        summary="calls of the shipped caches beside plain files",
        measure=_measure,
        references=(_PLAIN,),
    ),
)
