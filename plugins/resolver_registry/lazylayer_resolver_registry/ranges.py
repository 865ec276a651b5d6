"""The bytes of an answer to a range request, by their place in the blob.

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
    """The server answered several ranges in a way that cannot be used."""


def range_header(ranges: Sequence[ByteRange]) -> str:
    """The value of a Range header that asks for `ranges`."""
    return "bytes=" + ", ".join(f"{start}-{end - 1}" for start, end in ranges)


def total_size(response: httpx.Response) -> int | None:
    """How large the whole is, as the answer to a range request says; None if it does not."""
    if response.status_code == 206:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        return int(found[3]) if found is not None and found[3] != "*" else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None


def parts(response: httpx.Response, pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """The pieces of a body with status 200 or 206, each with its offset, as they arrive.

    :param pieces: the body, `response.iter_raw()`; it is left open, so that it can be read to its end.

    Raises MisplacedBytesError for a body whose place cannot be told.
    """
    if response.status_code == 200:
        yield from _placed(pieces, 0)
        return
    kind = response.headers.get("Content-Type", "")
    if kind.lower().startswith("multipart/byteranges"):
        boundary = _BOUNDARY.search(kind)
        if boundary is None:
            raise MisplacedBytesError("an answer in parts has no boundary")
        yield from _Parts(pieces, (boundary[1] or boundary[2]).encode("latin-1")).read()
        return
    place = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if place is None:
        raise MisplacedBytesError("a partial answer does not say which part it is")
    yield from _placed(pieces, int(place[1]))


def wanted(arriving: Iterator[tuple[int, bytes]], ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
    """What of the arriving pieces lies in `ranges` (sorted, apart), in order; ends with the last byte.

    Raises MisplacedBytesError when a piece comes too early, so that bytes before it are missing.
    """
    pending = list(reversed(ranges))
    at = pending[-1].start
    for offset, piece in arriving:
        end = offset + len(piece)
        while end > at:
            if offset > at:
                raise MisplacedBytesError(f"byte {offset} came where byte {at} should have")
            stop = min(end, pending[-1].end)
            yield at, piece[at - offset : stop - offset] if (at, stop) != (offset, end) else piece
            at = stop
            if at == pending[-1].end:
                pending.pop()
                if not pending:
                    return
                at = pending[-1].start


def after(ranges: Sequence[ByteRange], done: int) -> list[ByteRange]:
    """What of `ranges` lies behind byte `done`."""
    return [ByteRange(max(start, done), end) for start, end in ranges if end > done]


def _placed(pieces: Iterator[bytes], offset: int) -> Iterator[tuple[int, bytes]]:
    for piece in pieces:
        yield offset, piece
        offset += len(piece)


class _Parts:
    """Reads a multipart/byteranges body: each part says how long it is, so its bytes are not searched."""

    def __init__(self, pieces: Iterator[bytes], boundary: bytes) -> None:
        self._pieces = pieces
        self._delimiter = b"--" + boundary
        self._buffer = b""

    def read(self) -> Iterator[tuple[int, bytes]]:
        """The pieces of all parts, each with its offset in the blob."""
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
        """Reads a part's head; where the part begins and ends in the blob, or None after the last."""
        line = self._line()
        while line == b"":  # the end of the part before, and a preamble
            line = self._line()
        if line is None or line.startswith(self._delimiter + b"--"):
            return None
        if line != self._delimiter:
            raise MisplacedBytesError("an answer in parts is not divided as it says")
        place = None
        while line := self._line():
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-range":
                place = _CONTENT_RANGE.fullmatch(value.strip().decode("latin-1"))
        if place is None:
            raise MisplacedBytesError("a part of an answer does not say which part it is")
        return int(place[1]), int(place[2]) + 1

    def _line(self) -> bytes | None:
        """The next line without its end, or None at the end of the body."""
        while b"\n" not in self._buffer:
            piece = next(self._pieces, b"")
            if not piece:
                rest, self._buffer = self._buffer, b""
                return rest.rstrip(b"\r") or None
            self._buffer += piece
            if len(self._buffer) > _MAX_PART_HEADER and b"\n" not in self._buffer:
                raise MisplacedBytesError("the head of a part is too long")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")
