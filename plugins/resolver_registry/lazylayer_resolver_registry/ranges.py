"""Parse responses to range requests into pieces with their offsets in the blob.

Source: RFC 9110, chapter 14 (Range, Content-Range, multipart/byteranges).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import httpx

from lazylayer.api.byteranges import ByteRange
from lazylayer_resolver_registry.transport import RetryableError

__all__ = ["MisplacedBytesError", "after", "parts", "range_header", "total_size", "wanted"]

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_MAX_PART_HEADER = 16 * 1024


class MisplacedBytesError(RetryableError):
    """An unusable response to a range request."""


def range_header(ranges: Sequence[ByteRange]) -> str:
    """Return the value of a Range header for `ranges`."""
    return "bytes=" + ", ".join(f"{start}-{end - 1}" for start, end in ranges)


def total_size(response: httpx.Response) -> int | None:
    """Return the size of the whole blob in a response to a range request, or None if it is missing."""
    if response.status_code == 206:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        return int(found[3]) if found is not None and found[3] != "*" else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None


def parts(response: httpx.Response, pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the pieces of a body with status 200 or 206, each with its offset, as they arrive.

    :param pieces: the body, `response.iter_raw()`; left open, so the caller can read it to its end.

    Raises MisplacedBytesError for a body without a valid position.
    """
    if response.status_code == 200:
        yield from _placed(pieces, 0)
        return
    kind = response.headers.get("Content-Type", "")
    if kind.lower().startswith("multipart/byteranges"):
        boundary = _BOUNDARY.search(kind)
        if boundary is None:
            raise MisplacedBytesError("invalid multipart response: no boundary")
        yield from _Parts(pieces, (boundary[1] or boundary[2]).encode("latin-1")).read()
        return
    place = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if place is None:
        raise MisplacedBytesError("invalid partial response: no usable Content-Range")
    yield from _placed(pieces, int(place[1]))


def wanted(arriving: Iterator[tuple[int, bytes]], ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
    """Yield the parts of the arriving pieces that lie in `ranges`, in order; end with the last byte.

    :param ranges: sorted and disjoint.

    Raises MisplacedBytesError if a piece skips bytes of `ranges`.
    """
    pending = list(reversed(ranges))
    at = pending[-1].start
    for offset, piece in arriving:
        end = offset + len(piece)
        while end > at:
            if offset > at:
                raise MisplacedBytesError(f"invalid response: byte {offset} arrived, expected byte {at}")
            stop = min(end, pending[-1].end)
            yield at, piece[at - offset : stop - offset] if (at, stop) != (offset, end) else piece
            at = stop
            if at == pending[-1].end:
                pending.pop()
                if not pending:
                    return
                at = pending[-1].start


def after(ranges: Sequence[ByteRange], done: int) -> list[ByteRange]:
    """Return the parts of `ranges` from byte `done` on."""
    return [ByteRange(max(start, done), end) for start, end in ranges if end > done]


def _placed(pieces: Iterator[bytes], offset: int) -> Iterator[tuple[int, bytes]]:
    for piece in pieces:
        yield offset, piece
        offset += len(piece)


class _Parts:
    """A parser of multipart/byteranges bodies. Each part has a length, so its bytes are never searched."""

    def __init__(self, pieces: Iterator[bytes], boundary: bytes) -> None:
        self._pieces = pieces
        self._delimiter = b"--" + boundary
        self._buffer = b""

    def read(self) -> Iterator[tuple[int, bytes]]:
        """Yield the pieces of all parts, each with its offset in the blob."""
        while (place := self._next_part()) is not None:
            offset, end = place
            while offset < end:
                piece = self._buffer or next(self._pieces, b"")
                if not piece:
                    return
                taken, self._buffer = piece[: end - offset], piece[end - offset :]
                yield offset, taken
                offset += len(taken)

    def _next_part(self) -> tuple[int, int] | None:
        """Read a part's head; return its start and end in the blob, or None after the last part."""
        line = self._line()
        while line == b"":  # the previous part's line end, or a preamble
            line = self._line()
        if line is None or line.startswith(self._delimiter + b"--"):
            return None
        if line != self._delimiter:
            raise MisplacedBytesError("invalid multipart response: boundary expected")
        place = None
        while line := self._line():
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-range":
                place = _CONTENT_RANGE.fullmatch(value.strip().decode("latin-1"))
        if place is None:
            raise MisplacedBytesError("invalid multipart response: a part without a usable Content-Range")
        return int(place[1]), int(place[2]) + 1

    def _line(self) -> bytes | None:
        """Return the next line without its line end, or None at the end of the body."""
        while b"\n" not in self._buffer:
            piece = next(self._pieces, b"")
            if not piece:
                rest, self._buffer = self._buffer, b""
                return rest.rstrip(b"\r") or None
            self._buffer += piece
            if len(self._buffer) > _MAX_PART_HEADER and b"\n" not in self._buffer:
                raise MisplacedBytesError(f"invalid multipart response: a part's head exceeds {_MAX_PART_HEADER} bytes")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")
