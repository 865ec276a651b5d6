"""Compress gzip members, at a level.

libdeflate (the package `deflate`) makes smaller members than zlib several times as fast; for the
lowest levels isal, at its own two highest that matter, is faster still. `bench/run.py --only convert` measures them.
"""

from __future__ import annotations

import zlib
from typing import Any

from lazylayer.errors import BuildError
from lazylayer_tarlayers.members import Compress

__all__ = ["DEFAULT_LEVEL", "gzip_compressor"]

DEFAULT_LEVEL = 3
"""The fastest whose layers are as large as those of zlib at its best, give or take two per cent."""
_GZIP = 16 + zlib.MAX_WBITS
_ISAL_LEVELS = {1: 2, 2: 3}
"""isal's levels for ours; its level 1 is no faster than 2."""
_LEVELS = range(1, 13)


def gzip_compressor(level: int | None) -> Compress:
    """Return a function that compresses bytes to one gzip member, at a level from 1 (fast) to 12 (small).

    The same bytes give the same member wherever the same libraries are installed. Thread-safe; the
    GIL is released meanwhile. Raises BuildError for other levels.
    """
    level = DEFAULT_LEVEL if level is None else level
    if level not in _LEVELS:
        raise BuildError(f"invalid compression level {level}: choose {_LEVELS[0]} to {_LEVELS[-1]}")
    if level in _ISAL_LEVELS:
        isal = _import("isal.isal_zlib")
        if isal is not None:
            own = _ISAL_LEVELS[level]
            return lambda data: isal.compress(data, own, _GZIP)
    deflate = _import("deflate")
    if deflate is not None:
        return lambda data: deflate.gzip_compress(data, level)
    return lambda data: zlib.compress(data, min(level, 9), _GZIP)


def _import(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        return None
