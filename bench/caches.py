"""What a cache costs a read, side by side: the shipped caches, and what the operating system takes.

    python bench/caches.py [DIRECTORY]

Prints microseconds per call, the best of several rounds. `plain files` writes a file and renames it,
and reads it whole, without name, checksum, limit or order of use: what no cache on this file system
can do better. The lines of the chunk store are what a warm read of 128 KiB costs through the core.
DIRECTORY is on the file system to measure, by default the temporary one.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lazylayer.cache import Cache, CachedValue, ValueInMemory
from lazylayer.chunkstore import ChunkStore
from lazylayer_cache_dir import DirectoryCache
from lazylayer_cache_memory import MemoryCache

_CHUNK = 50_000
_LARGE = 4 * 1024 * 1024
_READ = 128 * 1024
_ROUNDS = 5
_CALLS = 400
_LIMIT = 2 * 1024**3

_Action = Callable[[str], object]


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


def _keys(prefix: str) -> Iterator[str]:
    return (f"sha256:{hashlib.sha256(f'{prefix}{number}'.encode()).hexdigest()}" for number in itertools.count())


def _microseconds(action: _Action, rounds: list[list[str]]) -> float:
    best = float("inf")
    for keys in rounds:
        start = time.perf_counter()
        for key in keys:
            action(key)
        best = min(best, (time.perf_counter() - start) / len(keys))
    return best * 1e6


def _print(what: str, cache: str, cost: float) -> None:
    print(f"{what:34} {cache:14} {cost:9.1f} µs")


def _measure_values(name: str, cache: Cache) -> None:
    data = random.Random(0).randbytes(_CHUNK)
    names = _keys(name)
    rounds = [list(itertools.islice(names, _CALLS)) for _ in range(_ROUNDS)]

    def open_and_read(key: str) -> None:
        value = cache.open(key)
        assert value is not None
        value.read(0, _CHUNK)
        value.close()

    _print("put 50 kB", name, _microseconds(lambda key: cache.put(key, data), rounds))
    _print("get 50 kB", name, _microseconds(cache.get, rounds))
    _print("open, read, close 50 kB", name, _microseconds(open_and_read, rounds))


def _measure_store(name: str, cache: Cache) -> None:
    store = ChunkStore(cache)
    data = random.Random(0).randbytes(_LARGE)
    digest = hashlib.sha256(data).digest()
    key = f"sha256:{digest.hex()}"
    cache.put(key, data)
    offsets = itertools.cycle(range(0, _LARGE, _READ))
    rounds = [[key] * _CALLS for _ in range(_ROUNDS)]
    _print(
        "read 128 KiB of an open 4 MiB chunk",
        name,
        _microseconds(lambda key: store.read(key, digest, next(offsets), _READ), rounds),
    )
    store.close()


def _measure_eviction(directory: Path) -> None:
    cache = DirectoryCache(directory / "evicting", max_bytes=_CALLS * _CHUNK)
    data = random.Random(0).randbytes(_CHUNK)
    names = _keys("evicting")
    rounds = [list(itertools.islice(names, _CALLS)) for _ in range(_ROUNDS)]
    _microseconds(lambda key: cache.put(key, data), rounds)
    worst = max(_microseconds(lambda key: cache.put(key, data), [keys]) for keys in rounds)
    _print("put 50 kB where one must leave", "cache_dir", worst)
    cache.close()


def _main() -> None:
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=parent) as temporary:
        directory = Path(temporary)
        _measure_values("plain files", _PlainFiles(directory / "plain"))
        for name, open_cache in (
            ("cache_dir", lambda: DirectoryCache(directory / "cache", max_bytes=_LIMIT)),
            ("cache_memory", lambda: MemoryCache(max_bytes=_LIMIT)),
        ):
            cache = open_cache()
            _measure_values(name, cache)
            _measure_store(name, cache)
        _measure_eviction(directory)


if __name__ == "__main__":
    _main()
