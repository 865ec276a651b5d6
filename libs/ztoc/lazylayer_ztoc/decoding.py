"""Read a zTOC: SOCI's flatbuffer, version 0.9, and the checkpoints in it.

Nothing that a zTOC says is believed: places, counts and sizes are checked here, once, and one that does not fit
together is refused. What it takes in memory is bounded by its size. Sources: SOCI's `ztoc.fbs`, `gzip_zinfo.h` and
`tar_zinfo.fbs`.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Iterator
from datetime import date
from itertools import pairwise

from lazylayer.api.oci import Digest, parse_digest
from lazylayer.errors import FormatError
from lazylayer_tarlayers.tarmember import MAX_PATH
from lazylayer_ztoc.flatbuffers import Flatbuffer, Table
from lazylayer_ztoc.model import WINDOW_SIZE, Checkpoint, Compression, FileRecord, Ztoc

__all__ = ["MAX_FILES", "MAX_ZTOC_SIZE", "decode_ztoc"]

MAX_ZTOC_SIZE = 256 * 1024 * 1024
"""Bytes. Larger zTOCs are refused unseen."""
MAX_FILES = 2_000_000
"""Entries of a layer."""

_MAX_SPANS = 1 << 20
_MAX_RECORDS = 1000
"""PAX records of one file."""
_MAX_RECORD = 64 * 1024 * 1024
"""Bytes of a PAX record. How large an extended attribute may be is decided where the tree is made."""
_MAX_WORD = 256
"""Bytes of a version, a type, a time or an owner's name."""
_SMALLEST_FILE = 32
"""Bytes that a file's table takes at least, with its place in the list."""
_MAX_OFFSET = (1 << 63) - 1

_ZTOC = "IIqqII"
_TOC = "I"
_FILE = "IIqqIqIIIIIqqI"
_RECORD = "II"
_COMPRESSION = "biII"
_TAR_ZINFO = "iqq"

_VERSION = b"0.9"
_GZIP, _UNCOMPRESSED = 1, 2
_ZINFO = struct.Struct("<Iq")
_CHECKPOINT = struct.Struct("<qqB")
_CHECKPOINT_SIZE = _CHECKPOINT.size + WINDOW_SIZE
_FIRST_OF_OLD = 10
"""Start of the first span in a zinfo of version 1, which does not say so: behind a gzip header without names."""

_EPOCH = date(1970, 1, 1).toordinal()
_TIME = re.compile(rb"(\d{4}-\d\d-\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)


def decode_ztoc(data: bytes, *, max_files: int = MAX_FILES) -> Ztoc:
    """Return what a zTOC says. Raises FormatError for one that is invalid, or too large."""
    if len(data) > MAX_ZTOC_SIZE:
        raise FormatError(f"a zTOC of {len(data)} bytes is larger than {MAX_ZTOC_SIZE}")
    try:
        return _Decoder(data).decode(max_files)
    except FormatError as error:
        raise FormatError(f"invalid zTOC: {error}") from error


class _Decoder:
    """Decodes one zTOC."""

    def __init__(self, data: bytes) -> None:
        self._buffer = Flatbuffer(data)
        self._data = data
        self._times: dict[bytes, int] = {b"": 0}
        self._types: dict[bytes, str] = {}

    def decode(self, max_files: int) -> Ztoc:
        root = self._buffer.root(_ZTOC)
        _, _, compressed_size, plain_size, _, _ = root.values
        version = self._text(root, 0, _MAX_WORD)
        if version != _VERSION:
            raise FormatError(f"its version is {version!r}; known is {_VERSION!r}")
        if not (0 < compressed_size <= _MAX_OFFSET and 0 <= plain_size <= _MAX_OFFSET):
            raise FormatError(f"a layer of {compressed_size} bytes, {plain_size} plain")
        info = self._buffer.table(self._target(root, 5), _COMPRESSION)
        compression, span_size, checkpoints = self._read_checkpoints(info, compressed_size)
        digests = self._read_digests(info)
        last = info.values[1]
        if not last + 1 == len(digests) == len(checkpoints):
            raise FormatError(f"{len(checkpoints)} checkpoints and {len(digests)} digests for {last + 1} spans")
        _check_order(checkpoints, compressed_size)
        return Ztoc(
            build_tool=self._text(root, 1, MAX_PATH).decode(errors="replace"),
            compressed_size=compressed_size,
            plain_size=plain_size,
            compression=compression,
            span_size=span_size,
            checkpoints=checkpoints,
            span_digests=digests,
            files=tuple(self._read_files(root, max_files)),
        )

    def _read_checkpoints(self, info: Table, compressed_size: int) -> tuple[Compression, int, tuple[Checkpoint, ...]]:
        algorithm = info.values[0] if info.offsets[0] else _GZIP
        start, size = self._buffer.vector(info.at + info.offsets[3], info.values[3], 1, len(self._data))
        zinfo = self._data[start : start + size]
        if algorithm == _GZIP:
            return "gzip", *_gzip_checkpoints(zinfo)
        if algorithm == _UNCOMPRESSED:
            return "uncompressed", *_tar_checkpoints(zinfo, compressed_size)
        raise FormatError(f"unknown compression {algorithm}")

    def _read_digests(self, info: Table) -> tuple[Digest, ...]:
        start, count = self._buffer.vector(info.at + info.offsets[2], info.values[2], 4, _MAX_SPANS)
        places = range(start, start + 4 * count, 4)
        targets = self._buffer.references(start, count)
        texts = (self._buffer.string(at, target - at, _MAX_WORD) for at, target in zip(places, targets, strict=True))
        return tuple(parse_digest(text.decode(errors="replace")) for text in texts)

    def _read_files(self, root: Table, max_files: int) -> Iterator[FileRecord]:
        toc = self._buffer.table(self._target(root, 4), _TOC)
        most = min(max_files, len(self._data) // _SMALLEST_FILE)
        start, count = self._buffer.vector(toc.at + toc.offsets[0], toc.values[0], 4, most)
        for at in self._buffer.references(start, count):
            yield self._read_file(at)

    def _read_file(self, at: int) -> FileRecord:
        (at, offsets, values), string = self._buffer.table(at, _FILE), self._buffer.string
        name, kind, data_offset, size, link, mode, uid, gid, user, group, time, major, minor, records = values
        kind_bytes = string(at + offsets[1], kind, _MAX_WORD)
        return FileRecord(
            string(at + offsets[0], name, MAX_PATH),
            self._types.get(kind_bytes) or self._types.setdefault(kind_bytes, kind_bytes.decode(errors="replace")),
            data_offset,
            size,
            string(at + offsets[4], link, MAX_PATH) if link else b"",
            mode,
            uid,
            gid,
            string(at + offsets[8], user, _MAX_WORD) if user else b"",
            string(at + offsets[9], group, _MAX_WORD) if group else b"",
            self._time(string(at + offsets[10], time, _MAX_WORD)),
            major,
            minor,
            self._read_records(at + offsets[13], records) if records else (),
        )

    def _read_records(self, place: int, distance: int) -> tuple[tuple[bytes, bytes], ...]:
        start, count = self._buffer.vector(place, distance, 4, _MAX_RECORDS)
        if not count:
            return ()
        tables = (self._buffer.table(at, _RECORD) for at in self._buffer.references(start, count))
        return tuple((self._text(each, 0, MAX_PATH), self._text(each, 1, _MAX_RECORD)) for each in tables)

    def _time(self, text: bytes) -> int:
        time = self._times.get(text)
        if time is None:
            time = self._times[text] = _parse_time(text)
        return time

    def _text(self, table: Table, field: int, longest: int) -> bytes:
        return self._buffer.string(table.at + table.offsets[field], table.values[field], longest)

    def _target(self, table: Table, field: int) -> int:
        if not table.values[field]:
            raise FormatError(f"it has no field {field}")
        return table.at + table.offsets[field] + table.values[field]


def _gzip_checkpoints(zinfo: bytes) -> tuple[int, tuple[Checkpoint, ...]]:
    """Return the span size and the checkpoints of a zinfo; its length tells its version."""
    if len(zinfo) < _ZINFO.size:
        raise FormatError(f"{len(zinfo)} bytes hold no checkpoints")
    count, span_size = _ZINFO.unpack_from(zinfo)
    written, rest = divmod(len(zinfo) - _ZINFO.size, _CHECKPOINT_SIZE)
    if rest or not count or count - written not in (0, 1) or span_size < 0:
        raise FormatError(f"{len(zinfo)} bytes do not hold {count} checkpoints")
    checkpoints = [] if count == written else [Checkpoint(_FIRST_OF_OLD, 0)]
    for at in range(_ZINFO.size, len(zinfo), _CHECKPOINT_SIZE):
        in_offset, out_offset, bits = _CHECKPOINT.unpack_from(zinfo, at)
        window = zinfo[at + _CHECKPOINT.size : at + _CHECKPOINT_SIZE] if out_offset else b""
        checkpoints.append(Checkpoint(in_offset, out_offset, bits, window))
    return span_size, tuple(checkpoints)


def _tar_checkpoints(zinfo: bytes, size: int) -> tuple[int, tuple[Checkpoint, ...]]:
    _, span_size, covered = Flatbuffer(zinfo).root(_TAR_ZINFO).values
    if covered != size or span_size <= 0 or -(-size // span_size) > _MAX_SPANS:
        raise FormatError(f"spans of {span_size} bytes of a tar of {covered} bytes, in a layer of {size}")
    return span_size, tuple(Checkpoint(start, start) for start in range(0, size, span_size))


def _check_order(checkpoints: tuple[Checkpoint, ...], compressed_size: int) -> None:
    first, last = checkpoints[0], checkpoints[-1]
    if first.out_offset or first.bits or first.in_offset < 0 or last.in_offset >= compressed_size:
        raise FormatError(f"its spans begin at {first.in_offset} and {last.in_offset} of {compressed_size} bytes")
    for number, (one, other) in enumerate(pairwise(checkpoints), 1):
        if not 0 <= other.bits < 8:
            raise FormatError(f"checkpoint {number} has {other.bits} bits")
        # A span that began where the one before does could not be told apart.
        if one.in_offset - bool(one.bits) >= other.in_offset - bool(other.bits) or one.out_offset >= other.out_offset:
            raise FormatError(f"checkpoint {number} does not lie behind the one before")


def _parse_time(text: bytes) -> int:
    """Return the nanoseconds since 1970 of a time as RFC 3339 has it."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise FormatError(f"invalid time {text[:80]!r}")
    day, hour, minute, second, fraction, sign, away_hours, away_minutes = match.groups()
    hours, minutes, seconds = int(hour), int(minute), int(second)
    if hours > 23 or minutes > 59 or seconds > 59:
        raise FormatError(f"invalid time {text[:80]!r}")
    seconds += _days(day) * 86_400 + hours * 3600 + minutes * 60
    if sign:
        away = int(away_hours) * 3600 + int(away_minutes) * 60
        seconds += away if sign == b"-" else -away
    return seconds * 1_000_000_000 + int((fraction or b"0").ljust(9, b"0"))


@functools.lru_cache(maxsize=4096)
def _days(text: bytes) -> int:
    """Return the days since 1970 of a date."""
    try:
        return date.fromisoformat(text.decode()).toordinal() - _EPOCH
    except ValueError:
        raise FormatError(f"invalid date {text!r}") from None
