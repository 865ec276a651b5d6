"""Byte ranges of a blob, and sets of them.

A byte range is half-open: `start` is in it, `end` is not. Byte ranges are plain data; `ByteRanges` is not safe to
use from several threads at once, so its owner locks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["ByteRange", "ByteRanges"]


class ByteRange(NamedTuple):
    """The bytes from `start` up to, not including, `end`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes in the range."""
        return self.end - self.start


class ByteRanges:
    """A set of bytes, kept as sorted ranges that neither overlap nor touch."""

    __slots__ = ("_ends", "_starts", "_total")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._total = 0

    def __iter__(self) -> Iterator[ByteRange]:
        return map(ByteRange, self._starts, self._ends)

    @property
    def total(self) -> int:
        """Bytes in the set."""
        return self._total

    def add(self, start: int, end: int) -> None:
        """Add the bytes from `start` to `end`; an empty range adds nothing."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
            self._total -= sum(self._ends[first:last]) - sum(self._starts[first:last])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
        self._total += end - start

    def covers(self, start: int, end: int) -> bool:
        """Return True if every byte from `start` to `end` is in the set."""
        if start >= end:
            return True
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and self._ends[at] >= end

    def missing(self, start: int, end: int) -> list[ByteRange]:
        """Return the ranges between `start` and `end` that are not in the set, in order."""
        gaps: list[ByteRange] = []
        at = bisect_right(self._ends, start)
        while start < end:
            if at >= len(self._starts) or self._starts[at] >= end:
                gaps.append(ByteRange(start, end))
                break
            if self._starts[at] > start:
                gaps.append(ByteRange(start, self._starts[at]))
            start = self._ends[at]
            at += 1
        return gaps
