"""Settings of the C library's allocator, for processes that run for long."""

from __future__ import annotations

import ctypes
import os

__all__ = ["use_few_arenas"]

_M_ARENA_MAX = -8
_ARENAS = 2


def use_few_arenas() -> None:
    """Let threads share two of glibc's arenas from now on, unless MALLOC_ARENA_MAX is set.

    By default each of many threads has an arena of its own, up to eight for each processor, and what it
    once needed stays there: a tenth of the memory of a daemon after a container's start. Does nothing
    with other C libraries. Source: mallopt(3).
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
