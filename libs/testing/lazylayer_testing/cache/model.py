"""Random sequences of calls on a cache, compared with a dictionary: part of the conformance kit."""

from __future__ import annotations

import itertools
import random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from lazylayer.api.cache import Cache, CachedValue

__all__ = ["check_against_model"]

_NAMES = ["a", "b", "c", "d", "e", "f"]
_SIZES = [0, 1, 2, 100, 4096, 5000, 65_536, 100_000, 300_000]


def check_against_model(cache: Cache, limit: int, overhead: int) -> None:
    """Run random sequences of calls on `cache`. Raises AssertionError for the first that goes wrong.

    A value that was put must be found as long as all values put since, each with `overhead` bytes
    more, fill less than half of `limit`; after that it may be missing. It must never be wrong, and
    never be found after its removal.
    """
    runs = itertools.count()

    class Machine(_CacheMachine):
        def __init__(self) -> None:
            super().__init__(cache, limit // 2, overhead, prefix=f"run-{next(runs)}")

    chosen = settings(
        max_examples=60,
        stateful_step_count=30,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=chosen)


class _CacheMachine(RuleBasedStateMachine):
    def __init__(self, cache: Cache, room: int, overhead: int, prefix: str) -> None:
        super().__init__()
        self.cache = cache
        self.room = room
        self.overhead = overhead
        self.prefix = prefix
        self.put_so_far: dict[str, bytes] = {}
        self.reckoned = 0
        self.opened: list[tuple[CachedValue, bytes]] = []

    @rule(name=st.sampled_from(_NAMES), size=st.sampled_from(_SIZES))
    def put(self, name: str, size: int) -> None:
        key = self._key(name)
        data = self.put_so_far.get(key)
        if data is None:
            data = random.Random(key).randbytes(size)  # noqa: S311 - no secret
        self.put_so_far[key] = data
        self.reckoned += len(data) + self.overhead
        self.cache.put(key, data)

    @rule(name=st.sampled_from(_NAMES))
    def get(self, name: str) -> None:
        self._compare(name, self.cache.get(self._key(name)))

    @rule(name=st.sampled_from(_NAMES))
    def has(self, name: str) -> None:
        key = self._key(name)
        found = self.cache.has(key)
        assert found or not self._must_be_kept(key)
        assert key in self.put_so_far or not found

    @rule(name=st.sampled_from(_NAMES), offset=st.integers(0, 5000), size=st.integers(0, 5000))
    def open_and_read(self, name: str, offset: int, size: int) -> None:
        key = self._key(name)
        value = self.cache.open(key)
        if value is None:
            assert not self._must_be_kept(key)
            return
        data = self.put_so_far[key]
        assert value.size == len(data)
        assert value.read(offset, size) == data[offset : offset + size]
        self.opened.append((value, data))

    @precondition(lambda self: self.opened)
    @rule(data=st.data())
    def read_and_close(self, data: Any) -> None:
        value, expected = self.opened.pop(data.draw(st.integers(0, len(self.opened) - 1)))
        assert value.read(0, len(expected)) == expected
        value.close()

    @rule(name=st.sampled_from(_NAMES))
    def remove(self, name: str) -> None:
        key = self._key(name)
        self.cache.remove(key)
        self.put_so_far.pop(key, None)
        assert self.cache.get(key) is None

    def teardown(self) -> None:
        for value, _ in self.opened:
            value.close()
        for key in self.put_so_far:
            self.cache.remove(key)

    def _key(self, name: str) -> str:
        return f"{self.prefix}.{name}"

    def _must_be_kept(self, key: str) -> bool:
        return key in self.put_so_far and self.reckoned <= self.room

    def _compare(self, name: str, found: bytes | None) -> None:
        key = self._key(name)
        if found is None:
            assert not self._must_be_kept(key)
        else:
            assert found == self.put_so_far.get(key)
