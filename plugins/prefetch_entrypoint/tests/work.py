"""Measures of what a parser does: steps of Python, and bytes that its calls into C touch; no clock.

A parser is linear if both grow with its input and no faster. Regular expressions count as the bytes that
they are given; that they do not backtrack is checked apart.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple, SupportsIndex

from lazylayer_prefetch_entrypoint.budget import Budget

__all__ = ["Work", "work_of"]

PACKAGE = "lazylayer_prefetch_entrypoint"


class Work(NamedTuple):
    """Lines of the package that ran, bytes that were searched and cut out of the input, units that were paid."""

    lines: int
    touched: int
    paid: int


class Measured(bytes):
    """Bytes that count how many of them are looked at."""

    touched = 0

    def find(self, sub: Any, start: Any = 0, end: Any = sys.maxsize, /) -> int:
        found = super().find(sub, start, end)
        self.touched += max((found if found >= 0 else min(end, len(self))) - start, 0) + 1
        return found

    def __getitem__(self, key: SupportsIndex | slice) -> Any:
        value: Any = super().__getitem__(key)
        self.touched += len(value) if isinstance(value, bytes) else 1
        return value


def work_of(parse: Callable[[bytes, Budget], object], data: bytes) -> Work:
    """Measure `parse` on an input."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if PACKAGE not in frame.f_code.co_filename:
            return None
        lines += event == "line"
        return trace

    measured, budget = Measured(data), Budget()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        parse(measured, budget)
    finally:
        sys.settrace(before)
    return Work(lines, measured.touched, budget.spent)
