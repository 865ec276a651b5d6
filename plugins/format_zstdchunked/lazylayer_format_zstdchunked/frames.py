"""Compress and inflate zstd frames, with bounded memory.

A compressor or decompressor of the package `zstandard` serves one thread at a time, so each thread
keeps its own. The GIL is released while they work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import zstandard

from lazylayer.errors import BuildError, FormatError

__all__ = ["DEFAULT_LEVEL", "inflate_member", "zstd_compressor"]

DEFAULT_LEVEL = 3
_MAX_LEVEL = 22
_MAX_WINDOW = 128 * 1024 * 1024
_ONE_SHOT_EXCESS = 1024 * 1024
"""Bytes. A frame that holds at most this much more than is wanted is inflated in one go."""

_own = threading.local()


def inflate_member(data: bytes | memoryview, size: int) -> bytes:
    """Return the first `size` bytes that the zstd frames at the start of `data` inflate to.

    `lazylayer.api.layers.LayerContents` describes the contract.
    """
    if size <= 0:
        return b""
    try:
        content = zstandard.frame_content_size(data)
        if size <= content <= size + _ONE_SHOT_EXCESS:
            inflated = _decompressor().decompress(data)
            return inflated if len(inflated) == size else inflated[:size]
        with _decompressor().stream_reader(data, read_across_frames=True) as reader:
            inflated = reader.read(size)
    except (zstandard.ZstdError, MemoryError) as error:
        raise FormatError(f"invalid zstd frame: {error}") from error
    if len(inflated) != size:
        raise FormatError(f"a zstd frame inflates to {len(inflated)} bytes where {size} were promised")
    return inflated


def _decompressor() -> zstandard.ZstdDecompressor:
    decompressor: zstandard.ZstdDecompressor | None = getattr(_own, "decompressor", None)
    if decompressor is None:
        decompressor = _own.decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    return decompressor


def zstd_compressor(level: int | None) -> Callable[[bytes | memoryview], bytes]:
    """Return a function that compresses bytes to one zstd frame, at a level from 1 (fast) to 22 (small).

    Thread-safe. Raises BuildError for other levels.
    """
    level = DEFAULT_LEVEL if level is None else level
    if not 1 <= level <= _MAX_LEVEL:
        raise BuildError(f"invalid compression level {level}: choose 1 to {_MAX_LEVEL}")
    own = threading.local()

    def compress(data: bytes | memoryview) -> bytes:
        compressor: zstandard.ZstdCompressor | None = getattr(own, "compressor", None)
        if compressor is None:
            compressor = own.compressor = zstandard.ZstdCompressor(level=level, write_content_size=True)
        return compressor.compress(data)

    return compress
