"""A cache that is slow, fails or is closed costs no read more than its deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from loguru import logger

from lazylayer.api.cache import Cache, CachedValue
from lazylayer.plugin.guardedcache import GuardedCache
from lazylayer_testing.synthetic import DictCache


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    logger.enable("lazylayer")
    messages: list[str] = []
    number = logger.add(lambda message: messages.append(str(message)), level="WARNING", format="{message}")
    yield messages
    logger.remove(number)
    logger.disable("lazylayer")


class Failing(Cache):
    def get(self, key: str) -> bytes | None:
        raise ConnectionError("no route to the cache")

    def put(self, key: str, data: bytes) -> None:
        raise ConnectionError("no route to the cache")


class Stuck(DictCache):
    """Answers when it is let go."""

    deadline: float | None = 0.05

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()
        self.calls = 0

    def get(self, key: str) -> bytes | None:
        self.calls += 1
        self.let_go.wait(30)
        return super().get(key)


def test_failures_are_misses_and_one_warning_of_each_kind(warnings: list[str]) -> None:
    cache = GuardedCache("cache_far", Failing())
    for _ in range(8):
        assert cache.get("key") is None
        assert cache.open("key") is None
        assert not cache.has("key")
        cache.put("key", b"data")
    assert [line.partition(":")[0] for line in warnings] == [
        "cache plugin cache_far failed to get a value",
        "cache plugin cache_far failed to open a value",
        "cache plugin cache_far failed to look for a value",
        "cache plugin cache_far failed to put a value",
    ]
    assert "no route to the cache" in warnings[0]


def test_a_late_cache_is_a_miss_and_rests(warnings: list[str]) -> None:
    slow = Stuck()
    cache = GuardedCache("cache_far", slow)
    try:
        assert [cache.get("key") for _ in range(20)] == [None] * 20
        assert slow.calls == 1
        (warning,) = warnings
        assert warning.startswith("cache plugin cache_far failed to get a value in time: no answer in 0.05 s")
    finally:
        slow.let_go.set()


def test_a_cache_that_answers_in_time_is_used_by_its_threads() -> None:
    slow = Stuck()
    slow.deadline = 30.0
    slow.let_go.set()
    cache = GuardedCache("cache_far", slow)
    cache.put("key", b"data")
    value = cache.open("key")
    assert value is not None
    assert (value.size, value.read(1, 2)) == (4, b"at")
    value.close()
    assert cache.has("key")


def test_a_value_that_is_late_is_an_error_of_the_value() -> None:
    slow = Stuck()

    class Late(CachedValue):
        size = 4

        def read(self, offset: int, size: int) -> bytes:
            slow.let_go.wait(30)
            return b""

    slow.open = lambda key: Late()  # type: ignore[method-assign]
    value = GuardedCache("cache_far", slow).open("key")
    assert value is not None
    with pytest.raises(OSError, match="does not answer"):
        value.read(0, 4)
    slow.let_go.set()


class Strict(DictCache):
    """Allows no call while or after it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0
        self.broken: list[str] = []
        self.closed = False

    def _watched(self, call: Callable[[], bytes | None]) -> bytes | None:
        self.inside += 1
        if self.closed:
            self.broken.append("called after close")
        try:
            return call()
        finally:
            self.inside -= 1

    def get(self, key: str) -> bytes | None:
        return self._watched(lambda: super(Strict, self).get(key))

    def put(self, key: str, data: bytes) -> None:
        self._watched(lambda: super(Strict, self).put(key, data))

    def close(self) -> None:
        if self.inside:
            self.broken.append("closed during a call")
        self.closed = True


def test_nothing_is_called_after_close() -> None:
    strict = Strict()
    cache = GuardedCache("cache_near", strict)
    started = threading.Barrier(5)

    def work() -> None:
        started.wait()
        for number in range(300):
            cache.put(f"{number}", b"x")
            cache.has(f"{number}")

    with ThreadPoolExecutor(4) as threads:
        done = [threads.submit(work) for _ in range(4)]
        started.wait()
        cache.close()
        cache.close()
        for each in done:
            each.result()
    assert strict.closed
    assert strict.broken == []
    assert cache.get("1") is None
