"""A simple cache that keeps the contract, and many that break it in one way each, to test the conformance kit."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from lazylayer.api.cache import Cache, CachedValue, CacheStatistics, ValueInMemory

__all__ = ["BROKEN", "PlainCache"]


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
