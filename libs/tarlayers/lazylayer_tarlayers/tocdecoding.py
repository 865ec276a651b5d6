"""Decode the JSON of a table of contents, bounded in entries, and in pieces where it is large.

A small layer can inflate to a huge TOC: 60 KB of gzip to 80 million entries. Decoded whole they would take
gigabytes, and the interpreter's lock for seconds. So a large TOC is cut between entries, and each piece is decoded
and forgotten on its own. Entries are counted on the way.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator

import msgspec

from lazylayer.errors import FormatError
from lazylayer_tarlayers.toc import MAX_TOC_SIZE, Toc, TocEntry

__all__ = ["MAX_ENTRIES", "decode_entries"]

MAX_ENTRIES = 1_000_000
"""Entries of one layer; more are refused. The largest images that we know of have some 500,000."""

_WHOLE_SIZE = 8 * 1024 * 1024
_WHOLE_ENTRIES = 20_000
_PIECE = 256 * 1024
_MAX_ENTRY = 4 * 1024 * 1024
"""Bytes of JSON of one entry: it may have extended attributes of 64 KiB each."""

_BEGIN = re.compile(rb'"entries"\s*:\s*\[\s*(?=\{)')
_BOUNDARY = re.compile(rb"\}\s*,\s*(?=\{)")
_END = re.compile(rb"\}\s*(?=\])")
_ESCAPE = re.compile(rb"\\.", re.DOTALL)

_toc_decoder = msgspec.json.Decoder(Toc)
_entries_decoder = msgspec.json.Decoder(list[TocEntry])


def decode_entries(data: bytes, max_entries: int = MAX_ENTRIES) -> Iterator[list[TocEntry]]:
    """Yield the entries of a TOC in order, some at a time. Raises FormatError.

    Decoded entries take at most a few dozen MiB, if the caller does not keep them.
    """
    if len(data) > MAX_TOC_SIZE:
        raise FormatError(f"a table of contents of {len(data)} bytes, more than {MAX_TOC_SIZE}")
    count = 0
    try:
        for entries in _whole(data) if _is_small(data) else _in_pieces(data):
            count += len(entries)
            if count > max_entries:
                raise FormatError(f"a table of contents of more than {max_entries} entries")
            yield entries
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise FormatError(f"invalid table of contents: {error}") from error


def _is_small(data: bytes) -> bool:
    # Every entry has a brace, so this counts too many at most.
    return len(data) <= _WHOLE_SIZE and data.count(b"{") <= _WHOLE_ENTRIES


def _whole(data: bytes) -> Iterator[list[TocEntry]]:
    yield _decode_toc(data).entries


def _decode_toc(data: bytes) -> Toc:
    toc = _toc_decoder.decode(data)
    if toc.version != 1:
        raise FormatError(f"a table of contents of version {toc.version}; only version 1 is known")
    return toc


def _in_pieces(data: bytes) -> Iterator[list[TocEntry]]:
    """Yield the entries piece by piece, and check that the pieces together are one JSON document.

    They are if the document without its entries is a TOC, and each piece is a list of entries. Cuts are
    made where an object ends in front of another, so that an entry with an array of objects is refused.
    No known format has such entries.
    """
    begin = _BEGIN.search(data)
    if begin is None:
        # No array of objects: this small document says what is wrong with it.
        yield _decode_toc(data[:_PIECE]).entries
        return
    start = begin.end()
    end = yield from _entries(data, start)
    if _decode_toc(data[:start] + data[end:]).entries:
        raise FormatError("invalid table of contents: two lists of entries")


def _entries(data: bytes, start: int) -> Generator[list[TocEntry], None, int]:
    """Yield the entries of the array whose first begins at `start`; return where the array ends."""
    while True:
        cut = _find(_BOUNDARY, data, start, _PIECE) or _find(_END, data, start, 0)
        if cut is None:
            raise FormatError(f"invalid table of contents: an entry does not end within {_MAX_ENTRY} bytes")
        yield _entries_decoder.decode(b"[" + data[start : cut.start() + 1] + b"]")
        start = cut.end()
        if data[start : start + 1] == b"]":
            return start


def _find(pattern: re.Pattern[bytes], data: bytes, start: int, after: int) -> re.Match[bytes] | None:
    """Find the first match, `after` bytes or more behind `start`, that is not in a string; `start` is not."""
    counted, quotes = start, 0
    for match in pattern.finditer(data, start + after, start + _PIECE + _MAX_ENTRY):
        text = data[counted : match.start()]
        quotes += (_ESCAPE.sub(b"", text) if b"\\" in text else text).count(b'"')
        if quotes % 2 == 0:
            return match
        counted = match.start()
    return None
