"""Checks of every cache: part of the conformance kit for caches."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest

from lazylayer.api.cache import Cache
from lazylayer_testing.cache.model import check_against_model

__all__ = [
    "LIMIT",
    "OVERHEAD",
    "VALUE_SIZE",
    "CacheConformance",
    "MakeCache",
    "OpenedCaches",
    "in_threads",
    "is_never_torn",
    "value_of",
]

LIMIT = 1024 * 1024
"""Bytes. The limit of the caches that the kit asks for."""
OVERHEAD = 8 * 1024
"""Bytes that a cache may reckon for a value beside its own."""

VALUE_SIZE = 60_000
"""Bytes of the values that the checks put, where they say nothing else."""
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789:._-"


class MakeCache(Protocol):
    """Opens the cache under test, limited to `max_bytes`.

    Within one test every call opens the same store: a second cache over it while the first is
    open, or again after the first was closed. Between tests nothing is kept.
    """

    def __call__(self, *, max_bytes: int) -> Cache:  # noqa: D102 - said above
        ...


class OpenedCaches:
    """The caches that a check has open; those left are closed at its end."""

    def __init__(self, make_cache: MakeCache) -> None:
        self._make_cache = make_cache
        self._opened: list[Cache] = []

    def open(self) -> Cache:
        """Open one more cache over the store of this check."""
        cache = self._make_cache(max_bytes=LIMIT)
        self._opened.append(cache)
        return cache

    def close(self, cache: Cache) -> None:
        """Close a cache that `open` returned."""
        self._opened.remove(cache)
        cache.close()

    def close_all(self) -> None:
        """Close all caches that are open."""
        for cache in list(self._opened):
            self.close(cache)


class CacheConformance:
    """The checks of every cache. Override `make_cache`."""

    @pytest.fixture
    def make_cache(self) -> MakeCache:
        """To be overridden: returns what opens the cache under test."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture make_cache")

    @pytest.fixture
    def limited(self) -> bool:
        """Override this to return False for a cache that takes no limit from the kit."""
        return True

    @pytest.fixture
    def needs_limit(self, limited: bool) -> None:
        """Skip the check for a cache without a limit."""
        if not limited:
            pytest.skip("this cache takes no limit (it has no option max_bytes)")

    @pytest.fixture
    def caches(self, make_cache: MakeCache) -> Iterator[OpenedCaches]:
        """Opens caches over one store and closes them at the end."""
        caches = OpenedCaches(make_cache)
        yield caches
        caches.close_all()

    @pytest.fixture
    def cache(self, caches: OpenedCaches) -> Cache:
        """One open, empty cache."""
        return caches.open()

    # --- single values ---------------------------------------------------------------------------

    def test_missing_key_is_a_miss(self, cache: Cache) -> None:
        """A key that was never put is None to `get` and `open`, and nothing to `remove`."""
        assert cache.get("missing") is None
        assert cache.open("missing") is None
        cache.remove("missing")

    @pytest.mark.parametrize("size", [1, 2, 4095, 4096, 4097, 65_536, 500_009])
    def test_put_value_is_found(self, cache: Cache, size: int) -> None:
        """A value is found as it was put, byte for byte."""
        cache.put("key", value_of("key", size))
        assert cache.get("key") == value_of("key", size)

    def test_empty_value_is_a_value(self, cache: Cache) -> None:
        """An empty value is not a miss."""
        cache.put("empty", b"")
        assert cache.get("empty") == b""
        value = cache.open("empty")
        assert value is not None
        assert value.size == 0
        assert value.read(0, 10) == b""
        value.close()

    def test_values_are_bytes(self, cache: Cache) -> None:
        """Values are `bytes`, so that no reader can change them."""
        cache.put("key", value_of("key"))
        assert type(cache.get("key")) is bytes
        value = cache.open("key")
        assert value is not None
        assert type(value.read(0, VALUE_SIZE)) is bytes
        assert type(value.read(1, 10)) is bytes
        value.close()

    def test_has_tells_what_get_would_find(self, cache: Cache) -> None:
        """`has` is True for what `get` finds and False for what it does not."""
        assert not cache.has("key")
        cache.put("key", value_of("key"))
        assert cache.has("key")
        cache.remove("key")
        assert cache.has("key") == (cache.get("key") is not None)

    def test_removed_value_is_gone(self, cache: Cache) -> None:
        """After `remove` the value is a miss, others are not, and it can be put again."""
        cache.put("key", value_of("key"))
        cache.put("other", value_of("other"))
        cache.remove("key")
        assert cache.get("key") is None
        assert cache.open("key") is None
        assert cache.get("other") == value_of("other")
        cache.put("key", value_of("key"))
        assert cache.get("key") == value_of("key")

    def test_putting_again_changes_nothing(self, cache: Cache) -> None:
        """A value put a hundred times takes room once."""
        cache.put("other", value_of("other"))
        for _ in range(100):
            cache.put("key", value_of("key"))
        assert cache.get("key") == value_of("key")
        assert cache.get("other") == value_of("other")

    def test_every_key_is_its_own(self, cache: Cache) -> None:
        """All keys of the alphabet work, 1 to 128 characters, and none is taken for another."""
        keys = [*(c for c in _ALPHABET if c != "."), *(f"a{c}b" for c in _ALPHABET)]
        keys += [
            "...",
            ".a",
            "a.",
            "..a",
            "-a",
            "--",
            "_",
            ":",
            "a:b",
            "a:b:c",
            "con",
            "tmp",
            "lock",
            "index",
            "00",
            "ff",
        ]
        keys += ["sha256:" + "0" * 64, "sha256:" + "0" * 63 + "1", "a" * 127, "a" * 128, "a" * 127 + "b"]
        for key in keys:
            cache.put(key, value_of(key, 100))
        wrong = [key for key in keys if cache.get(key) != value_of(key, 100)]
        assert not wrong

    # --- open values -----------------------------------------------------------------------------

    def test_open_value_reads_any_part(self, cache: Cache) -> None:
        """`read` gives the bytes from every offset, fewer only at the end."""
        data = value_of("key", 41)
        cache.put("key", data)
        value = cache.open("key")
        assert value is not None
        assert value.size == 41
        for offset, size in itertools.product(range(45), (0, 1, 2, 7, 40, 41, 42, 1000)):
            assert value.read(offset, size) == data[offset : offset + size], (offset, size)
        value.close()

    def test_open_value_survives_removal(self, cache: Cache) -> None:
        """An open value stays readable after `remove`."""
        cache.put("key", value_of("key"))
        value = cache.open("key")
        assert value is not None
        cache.remove("key")
        assert value.read(0, VALUE_SIZE) == value_of("key")
        value.close()

    def test_open_value_survives_eviction(self, cache: Cache) -> None:
        """An open value stays readable when the cache needs its room."""
        cache.put("key", value_of("key"))
        value = cache.open("key")
        assert value is not None
        for number in range(60):
            cache.put(f"filler-{number}", value_of(f"filler-{number}"))
        assert value.read(0, VALUE_SIZE) == value_of("key")
        value.close()

    def test_open_value_closes_twice(self, cache: Cache) -> None:
        """Closing a value again does nothing, and other values of the key stay open."""
        cache.put("key", value_of("key"))
        first, second = cache.open("key"), cache.open("key")
        assert first is not None
        assert second is not None
        first.close()
        first.close()
        assert second.read(0, VALUE_SIZE) == value_of("key")
        second.close()

    def test_open_value_is_for_many_threads(self, cache: Cache) -> None:
        """Threads that read different parts of one open value do not disturb each other."""
        data = value_of("key")
        cache.put("key", data)
        value = cache.open("key")
        assert value is not None

        def read_parts(thread: int) -> bool:
            offsets = random.Random(thread).sample(range(VALUE_SIZE), 100)  # noqa: S311 - no secret
            return all(value.read(offset, 500) == data[offset : offset + 500] for offset in offsets)

        assert all(in_threads(read_parts))
        value.close()

    # --- room ------------------------------------------------------------------------------------

    def test_what_fits_is_kept(self, cache: Cache) -> None:
        """Values that fill less than half of the limit are all kept."""
        keys = [f"key-{number}" for number in range(7)]
        for key in keys:
            cache.put(key, value_of(key))
        lost = [key for key in keys if cache.get(key) != value_of(key)]
        assert not lost

    @pytest.mark.usefixtures("needs_limit")
    def test_limit_is_respected(self, cache: Cache) -> None:
        """However much is put, the values found and the statistics stay within the limit."""
        keys = [f"key-{number}" for number in range(60)]
        for key in keys:
            cache.put(key, value_of(key))
            statistics = cache.statistics()
            assert statistics is None or statistics.bytes <= LIMIT
        assert sum(len(cache.get(key) or b"") for key in keys) <= LIMIT

    @pytest.mark.usefixtures("needs_limit")
    def test_too_large_value_is_not_kept(self, cache: Cache) -> None:
        """A value larger than the limit is silently not kept, and drives out nothing."""
        cache.put("key", value_of("key"))
        cache.put("large", value_of("large", LIMIT + 1))
        assert cache.get("large") is None
        assert cache.get("key") == value_of("key")

    @pytest.mark.parametrize("use", ["get", "open"])
    def test_used_value_stays(self, cache: Cache, use: str) -> None:
        """A value in use outlives values that are put and not used: the oldest use goes first."""
        cache.put("used", value_of("used"))
        for number in range(60):
            cache.put(f"filler-{number}", value_of(f"filler-{number}"))
            if use == "get":
                assert cache.get("used") is not None, f"lost after {number + 1} other values"
            else:
                value = cache.open("used")
                assert value is not None, f"lost after {number + 1} other values"
                value.close()

    def test_statistics_count_values(self, cache: Cache, limited: bool) -> None:
        """`statistics`, where there are any, follow `put` and `remove`."""
        if cache.statistics() is None:
            pytest.skip("this cache has no statistics")
        for key in ("a", "b", "c"):
            cache.put(key, value_of(key))
        before = cache.statistics()
        cache.remove("b")
        after = cache.statistics()
        assert before is not None
        assert after is not None
        assert (before.entries, after.entries) == (3, 2)
        assert before.bytes > after.bytes > 0
        assert before.limit == after.limit
        assert after.limit == LIMIT or not limited

    # --- threads, closing, everything together ----------------------------------------------------

    def test_threads_share_a_key(self, cache: Cache) -> None:
        """Readers of a key that others put and remove find all of its value or nothing."""
        data = value_of("key")

        def hammer(thread: int) -> bool:
            for number in range(40):
                if thread % 2:
                    cache.put("key", data)
                if thread % 4 == 3 and number % 4 == 0:
                    cache.remove("key")
                if cache.get("key") not in (None, data):
                    return False
                value = cache.open("key")
                if value is not None:
                    part = value.read(1000, 1000)
                    value.close()
                    if part != data[1000:2000]:
                        return False
            return True

        assert all(in_threads(hammer))

    def test_threads_with_keys_of_their_own(self, cache: Cache, limited: bool) -> None:
        """Threads that fill the cache beyond its limit never find each other's values."""

        assert all(in_threads(lambda thread: is_never_torn(cache, thread)))
        keys = [f"key-{thread}-{number}" for thread in range(8) for number in range(20)]
        assert sum(len(cache.get(key) or b"") for key in keys) <= LIMIT or not limited

    def test_closes_twice(self, make_cache: MakeCache) -> None:
        """Closing a cache again does nothing."""
        cache = make_cache(max_bytes=LIMIT)
        cache.put("key", value_of("key"))
        cache.close()
        cache.close()

    def test_behaves_like_the_model(self, caches: OpenedCaches) -> None:
        """Any sequence of calls gives what a dictionary would give, except for what was evicted."""
        check_against_model(caches.open(), LIMIT, OVERHEAD)


def value_of(key: str, size: int = VALUE_SIZE) -> bytes:
    """Return the value of `key`: bytes that no other key has, and that do not compress."""
    return random.Random(key).randbytes(size)  # noqa: S311 - no secret


def in_threads(work: Callable[[int], bool], threads: int = 8) -> list[bool]:
    """Call `work` with the numbers of so many concurrent threads, and return the results."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, range(threads)))


def is_never_torn(cache: Cache, thread: int) -> bool:
    """Put and get values under keys of one thread; return False if `get` finds anything but the value or nothing."""
    for number in range(20):
        key = f"key-{thread}-{number}"
        cache.put(key, value_of(key))
        if cache.get(key) not in (None, value_of(key)):
            return False
    return True
