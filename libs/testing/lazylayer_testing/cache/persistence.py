"""Checks of caches whose values outlive the process: part of the conformance kit for caches."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lazylayer.api.cache import Cache
from lazylayer_testing.cache.process import CacheProcess
from lazylayer_testing.cache.values import (
    LIMIT,
    VALUE_SIZE,
    CacheConformance,
    MakeCache,
    OpenedCaches,
    in_threads,
    is_never_torn,
    value_of,
)
from lazylayer_testing.comparing import assert_same_bytes

__all__ = ["PersistentCacheConformance"]


class PersistentCacheConformance(CacheConformance):
    """The checks of a cache whose values outlive the process, in a store that processes share.

    `make_cache` must be picklable, since the kit opens the cache in other processes too: a class or
    `functools.partial` of a function at the top of a module. Override `stored_in` if there is a
    directory of files, so that the kit can damage them.
    """

    @pytest.fixture
    def stored_in(self) -> Path | None:
        """To be overridden: the directory that holds the values of this test, or None."""
        return None

    def test_values_survive_reopening(self, caches: OpenedCaches) -> None:
        """A cache that is opened again finds what was put before."""
        first = caches.open()
        first.put("key", value_of("key"))
        caches.close(first)
        second = caches.open()
        assert second.get("key") == value_of("key")
        assert second.has("key")

    def test_instances_do_not_disturb_each_other(self, caches: OpenedCaches) -> None:
        """Two caches of one process over the same store put at the same time, and nothing is torn."""
        pair = caches.open(), caches.open()

        assert all(in_threads(lambda thread: is_never_torn(pair[thread % 2], thread)))

    def test_processes_share_the_store(self, make_cache: MakeCache, cache: Cache) -> None:
        """A process finds the values that another puts, while both have the store open."""
        with CacheProcess(make_cache, LIMIT) as other:
            cache.put("ours", value_of("ours"))
            assert other.get("ours") == value_of("ours")
            other.put("theirs", value_of("theirs"))
            assert cache.get("theirs") == value_of("theirs")

    @pytest.mark.usefixtures("needs_limit")
    def test_processes_share_the_limit(self, make_cache: MakeCache, cache: Cache) -> None:
        """Two processes together stay within the limit."""
        keys = [f"key-{number}" for number in range(40)]
        with CacheProcess(make_cache, LIMIT) as other:
            for ours, theirs in zip(keys[0::2], keys[1::2], strict=True):
                cache.put(ours, value_of(ours))
                other.put(theirs, value_of(theirs))
            found = {key: cache.get(key) for key in keys}
            assert all(data in (None, value_of(key)) for key, data in found.items())
            assert sum(len(data or b"") for data in found.values()) <= LIMIT

    def test_killed_writer_leaves_nothing_torn(self, make_cache: MakeCache, caches: OpenedCaches) -> None:
        """After kill -9 in the middle of `put` every value is whole or missing, and the cache works."""
        keys = [f"key-{number}" for number in range(5)]
        for delay in (0.01, 0.02, 0.03, 0.05, 0.08):
            with CacheProcess(make_cache, LIMIT) as other:
                other.put_and_remove_for_ever({key: value_of(key, 150_000) for key in keys})
                time.sleep(delay)
                other.kill()
            cache = caches.open()
            torn = [key for key in keys if cache.get(key) not in (None, value_of(key, 150_000))]
            assert not torn
            cache.put("after", value_of("after"))
            assert cache.get("after") == value_of("after")
            caches.close(cache)

    @pytest.mark.parametrize("damage", ["half", "empty", "zeros", "flip", "longer"])
    def test_damaged_file_is_a_miss(self, caches: OpenedCaches, stored_in: Path | None, damage: str) -> None:
        """Files that a crash or a bad disk changed are never served; the cache goes on working."""
        if stored_in is None:
            pytest.skip("this cache does not keep its values in files")
        keys = [f"key-{number}" for number in range(5)]
        cache = caches.open()
        for key in keys:
            cache.put(key, value_of(key))
        caches.close(cache)
        files = [file for file in stored_in.rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in files) >= len(keys) * VALUE_SIZE, (
            "stored_in is not where the values are"
        )
        for file in files:
            file.write_bytes(_DAMAGES[damage](file.read_bytes()))
        cache = caches.open()
        for key in keys:
            value = cache.open(key)
            if value is not None:
                assert_same_bytes(value.read(0, value.size), value_of(key), key)
                value.close()
            found = cache.get(key)
            if found is not None:
                assert_same_bytes(found, value_of(key), key)
        cache.put("after", value_of("after"))
        assert_same_bytes(cache.get("after"), value_of("after"), "after")


_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "zeros": lambda data: bytes(len(data)),
    "flip": lambda data: (
        data[: len(data) // 2] + bytes(b ^ 0xFF for b in data[len(data) // 2 :][:1]) + data[len(data) // 2 + 1 :]
    ),
    "longer": lambda data: data + b"\0",
}
