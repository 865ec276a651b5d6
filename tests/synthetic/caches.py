"""Two simple caches that keep the contract, and many that break it in one way each.

They are for testing the conformance kit. The persistent ones are opened in other processes too, which
import this module.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lazylayer.cache import Cache, CachedValue, CacheStatistics, ValueInMemory

__all__ = ["BROKEN", "BROKEN_PERSISTENT", "FileCache", "PlainCache"]


class PlainCache(Cache):
    """Values in a dictionary. Right in all that the contract asks."""

    def __init__(self, *, max_bytes: int) -> None:
        self.limit = max_bytes
        self.lock = threading.RLock()
        self.values: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        with self.lock:
            if key in self.values:
                self.values.move_to_end(key)
            return self.values.get(key)

    def put(self, key: str, data: bytes) -> None:
        with self.lock:
            if len(data) > self.limit:
                return
            self.values[key] = data
            self.values.move_to_end(key)
            while self.held() > self.limit:
                self.values.popitem(last=False)

    def has(self, key: str) -> bool:
        return key in self.values

    def remove(self, key: str) -> None:
        with self.lock:
            self.values.pop(key, None)

    def statistics(self) -> CacheStatistics | None:
        with self.lock:
            return CacheStatistics(len(self.values), self.held(), self.limit)

    def held(self) -> int:
        return sum(map(len, self.values.values()))


# --- broken: single values ---------------------------------------------------------------------------


class RaisesForMisses(PlainCache):
    def get(self, key: str) -> bytes | None:
        return self.values[key]


class CutsLargeValues(PlainCache):
    def put(self, key: str, data: bytes) -> None:
        super().put(key, data[:65_536])


class TakesEmptyForMissing(PlainCache):
    def get(self, key: str) -> bytes | None:
        return super().get(key) or None


class HandsOutArrays(PlainCache):
    def get(self, key: str) -> bytes | None:
        data = super().get(key)
        return None if data is None else bytearray(data)  # type: ignore[return-value]


class HasEverything(PlainCache):
    def has(self, key: str) -> bool:
        return True


class RemovesNothing(PlainCache):
    def remove(self, key: str) -> None:
        pass


class RemovesEverything(PlainCache):
    def remove(self, key: str) -> None:
        self.values.clear()


class CountsEveryPut(PlainCache):
    counted = 0

    def put(self, key: str, data: bytes) -> None:
        self.counted += len(data)
        super().put(key, data)
        while self.counted > self.limit:
            self.counted -= len(self.values.popitem(last=False)[1])


class FoldsPunctuation(PlainCache):
    def get(self, key: str) -> bytes | None:
        return super().get(key.replace(":", "-"))

    def put(self, key: str, data: bytes) -> None:
        super().put(key.replace(":", "-"), data)


class CutsKeys(PlainCache):
    def get(self, key: str) -> bytes | None:
        return super().get(key[:64])

    def put(self, key: str, data: bytes) -> None:
        super().put(key[:64], data)


# --- broken: open values -----------------------------------------------------------------------------


class ReadsPastTheEnd(PlainCache):
    class Value(ValueInMemory):
        def read(self, offset: int, size: int) -> bytes:
            return super().read(offset, size).ljust(size, b"\0")

    def open(self, key: str) -> CachedValue | None:
        data = self.get(key)
        return None if data is None else self.Value(data)


class LooksUpAtEachRead(PlainCache):
    class Value(CachedValue):
        def __init__(self, cache: PlainCache, key: str, size: int) -> None:
            self.cache, self.key, self.size = cache, key, size

        def read(self, offset: int, size: int) -> bytes:
            return (self.cache.values.get(self.key) or b"")[offset : offset + size]

    def open(self, key: str) -> CachedValue | None:
        data = self.get(key)
        return None if data is None else self.Value(self, key, len(data))


class ClosesOnce(PlainCache):
    class Value(ValueInMemory):
        __slots__ = ("closed",)

        def close(self) -> None:
            assert not hasattr(self, "closed"), "closed before"
            self.closed = True

    def open(self, key: str) -> CachedValue | None:
        data = self.get(key)
        return None if data is None else self.Value(data)


class SeeksAndReads(PlainCache):
    class Value(CachedValue):
        def __init__(self, data: bytes) -> None:
            self.data, self.size, self.position = data, len(data), 0

        def read(self, offset: int, size: int) -> bytes:
            self.position = offset
            time.sleep(0)
            return self.data[self.position : self.position + size]

    def open(self, key: str) -> CachedValue | None:
        data = self.get(key)
        return None if data is None else self.Value(data)


# --- broken: room ------------------------------------------------------------------------------------


class KeepsThree(PlainCache):
    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        while len(self.values) > 3:
            self.values.popitem(last=False)


class KnowsNoLimit(PlainCache):
    def put(self, key: str, data: bytes) -> None:
        self.values[key] = data

    def statistics(self) -> CacheStatistics | None:
        return None


class SaysMoreThanTheLimit(PlainCache):
    def statistics(self) -> CacheStatistics | None:
        return CacheStatistics(len(self.values), self.limit + 1, self.limit)


class KeepsTooLargeValues(PlainCache):
    def put(self, key: str, data: bytes) -> None:
        if len(data) > self.limit:
            self.values[key] = data
        else:
            super().put(key, data)


class MakesRoomInVain(PlainCache):
    def put(self, key: str, data: bytes) -> None:
        if len(data) > self.limit:
            self.values.clear()
        super().put(key, data)


class FirstInFirstOut(PlainCache):
    def get(self, key: str) -> bytes | None:
        return self.values.get(key)


class OpeningIsNoUse(PlainCache):
    def open(self, key: str) -> CachedValue | None:
        data = self.values.get(key)
        return None if data is None else ValueInMemory(data)


class CountsNoRemovals(PlainCache):
    def statistics(self) -> CacheStatistics | None:
        self.most = max(getattr(self, "most", 0), len(self.values))
        return CacheStatistics(self.most, self.held(), self.limit)


# --- broken: threads, closing, sequences -------------------------------------------------------------


class PutsInTwoSteps(PlainCache):
    def put(self, key: str, data: bytes) -> None:
        self.values[key] = data[: len(data) // 2]
        time.sleep(0)
        super().put(key, data)


class RemembersTheLastKey(PlainCache):
    def put(self, key: str, data: bytes) -> None:
        self.key = key
        time.sleep(0)
        super().put(self.key, data)


class ClosesCacheOnce(PlainCache):
    closed = False

    def close(self) -> None:
        assert not self.closed, "closed before"
        self.closed = True


class RemovesOnePutOnly(PlainCache):
    def __init__(self, *, max_bytes: int) -> None:
        super().__init__(max_bytes=max_bytes)
        self.puts: dict[str, int] = {}

    def put(self, key: str, data: bytes) -> None:
        self.puts[key] = self.puts.get(key, 0) + 1
        super().put(key, data)

    def remove(self, key: str) -> None:
        self.puts[key] = self.puts.get(key, 1) - 1
        if not self.puts[key]:
            super().remove(key)


BROKEN: dict[type[PlainCache], str] = {
    RaisesForMisses: "test_missing_key_is_a_miss",
    CutsLargeValues: "test_put_value_is_found",
    TakesEmptyForMissing: "test_empty_value_is_a_value",
    HandsOutArrays: "test_values_are_bytes",
    HasEverything: "test_has_tells_what_get_would_find",
    RemovesNothing: "test_removed_value_is_gone",
    RemovesEverything: "test_removed_value_is_gone",
    CountsEveryPut: "test_putting_again_changes_nothing",
    FoldsPunctuation: "test_every_key_is_its_own",
    CutsKeys: "test_every_key_is_its_own",
    ReadsPastTheEnd: "test_open_value_reads_any_part",
    LooksUpAtEachRead: "test_open_value_survives_removal",
    ClosesOnce: "test_open_value_closes_twice",
    SeeksAndReads: "test_open_value_is_for_many_threads",
    KeepsThree: "test_what_fits_is_kept",
    KnowsNoLimit: "test_limit_is_respected",
    SaysMoreThanTheLimit: "test_limit_is_respected",
    KeepsTooLargeValues: "test_too_large_value_is_not_kept",
    MakesRoomInVain: "test_too_large_value_is_not_kept",
    FirstInFirstOut: "test_used_value_stays",
    OpeningIsNoUse: "test_used_value_stays",
    CountsNoRemovals: "test_statistics_count_values",
    PutsInTwoSteps: "test_threads_share_a_key",
    RemembersTheLastKey: "test_threads_with_keys_of_their_own",
    ClosesCacheOnce: "test_closes_twice",
    RemovesOnePutOnly: "test_behaves_like_the_model",
}
"""Each broken cache, and the check that must fail for it."""


# --- on disk -----------------------------------------------------------------------------------------


class FileCache(Cache):
    """A file for each value, behind its sha256; all is listed at each put. Slow, and right."""

    numbers = itertools.count()

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self.directory = directory
        self.limit = max_bytes
        directory.mkdir(exist_ok=True)

    def path(self, key: str) -> Path:
        return self.directory / f"value-{hashlib.sha256(key.encode()).hexdigest()}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def get(self, key: str) -> bytes | None:
        try:
            content = self.path(key).read_bytes()
            now = time.time_ns()
            os.utime(self.path(key), ns=(now, now))
        except FileNotFoundError:
            return None
        return self.unpacked(content)

    def put(self, key: str, data: bytes) -> None:
        content = self.packed(data)
        if len(content) > self.limit:
            return
        with self.locked():
            self.write(self.path(key), content)
            self.evict()

    def remove(self, key: str) -> None:
        with self.locked():
            self.path(key).unlink(missing_ok=True)

    def packed(self, data: bytes) -> bytes:
        return hashlib.sha256(data).digest() + data

    def unpacked(self, content: bytes) -> bytes | None:
        return content[32:] if hashlib.sha256(content[32:]).digest() == content[:32] else None

    def write(self, path: Path, content: bytes) -> None:
        new = self.directory / f"new-{os.getpid()}-{next(self.numbers)}"
        new.write_bytes(content)
        now = time.time_ns()
        os.utime(new, ns=(now, now))
        new.rename(path)

    def evict(self) -> None:
        files = sorted((each.stat().st_mtime_ns, each.stat().st_size, each) for each in self.mine())
        held = sum(size for _, size, _ in files)
        for _, size, file in files:
            if held <= self.limit:
                return
            file.unlink()
            held -= size

    def mine(self) -> list[Path]:
        return list(self.directory.glob("value-*"))


class ForgetsAtClose(FileCache):
    def close(self) -> None:
        for file in self.mine():
            file.unlink()


class KnowsItsOwnPutsOnly(FileCache):
    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        super().__init__(directory, max_bytes=max_bytes)
        self.known = set(self.mine())

    def get(self, key: str) -> bytes | None:
        return super().get(key) if self.path(key) in self.known else None

    def write(self, path: Path, content: bytes) -> None:
        super().write(path, content)
        self.known.add(path)


class EvictsItsOwnPutsOnly(KnowsItsOwnPutsOnly):
    def get(self, key: str) -> bytes | None:
        return FileCache.get(self, key)

    def mine(self) -> list[Path]:
        return [each for each in super().mine() if each in getattr(self, "known", ())]


class WritesInPlace(FileCache):
    def unpacked(self, content: bytes) -> bytes | None:
        return content[32:]

    def write(self, path: Path, content: bytes) -> None:
        with path.open("wb", buffering=0) as file:
            for at in range(0, len(content), 100):
                file.write(content[at : at + 100])


class ChecksNothing(FileCache):
    def unpacked(self, content: bytes) -> bytes | None:
        return content[32:]


class ChecksTheSizeOnly(FileCache):
    def packed(self, data: bytes) -> bytes:
        return len(data).to_bytes(32, "little") + data

    def unpacked(self, content: bytes) -> bytes | None:
        return content[32:] if int.from_bytes(content[:32], "little") == len(content) - 32 else None


class SharesOneTemporaryFile(FileCache):
    @contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def unpacked(self, content: bytes) -> bytes | None:
        return content[32:]

    def write(self, path: Path, content: bytes) -> None:
        new = self.directory / "new"
        new.write_bytes(content)
        time.sleep(0)
        new.rename(path)


BROKEN_PERSISTENT: dict[type[FileCache], str] = {
    ForgetsAtClose: "test_values_survive_reopening",
    KnowsItsOwnPutsOnly: "test_processes_share_the_store",
    EvictsItsOwnPutsOnly: "test_processes_share_the_limit",
    WritesInPlace: "test_killed_writer_leaves_nothing_torn",
    ChecksNothing: "test_damaged_file_is_a_miss",
    ChecksTheSizeOnly: "test_damaged_file_is_a_miss",
    SharesOneTemporaryFile: "test_instances_do_not_disturb_each_other",
}
"""Each broken persistent cache, and the check that must fail for it."""
