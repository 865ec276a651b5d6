"""Write a zTOC as SOCI's flatbuffer, version 0.9.

In a flatbuffer every reference but that to a vtable points forwards, so the buffer is written in this order: vtables,
tables, PAX records, then one pool of strings, where equal strings are written once, and at the end the checkpoints.
Sources: SOCI's `ztoc.fbs` and `zinfo.fbs`, and "FlatBuffer Internals".
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable
from datetime import UTC, datetime

from lazylayer_ztoc.model import WINDOW_SIZE, Checkpoint, FileRecord, Ztoc
from lazylayer_ztoc.tartable import NotIndexableError

__all__ = ["encode_ztoc"]

_MAX_SIZE = (1 << 31) - 1
"""Bytes of a flatbuffer; its readers count in 32 bits with a sign."""
_VERSION = b"0.9"
_ALGORITHMS = {"gzip": 1, "uncompressed": 2}
_TAR_ZINFO_VERSION = 2


class _Layout:
    """A kind of table: where each field lies in it. Field 0 of the vtable is at `offsets[0]`, 0 if it is left out."""

    def __init__(self, fields: str, offsets: tuple[int, ...]) -> None:
        self._struct = struct.Struct(f"<i{fields}")
        self.size = self._struct.size
        words = (4 + 2 * len(offsets), self.size, *offsets)
        self.vtable = struct.pack(f"<{len(words)}H", *words)

    def write(self, buffer: bytearray, at: int, vtable: int, *values: int) -> None:
        """Write a table at `at`, whose vtable lies at `vtable`."""
        self._struct.pack_into(buffer, at, at - vtable, *values)


_ZTOC = _Layout("IqqIIII", (4, 24, 8, 16, 28, 32))
"""version · (compressed and plain size) · build tool · toc · compression info, and a word of padding."""
_TOC = _Layout("I", (4,))
_COMPRESSION = _Layout("iIIb", (16, 4, 8, 12))
"""max span · digests · checkpoints · algorithm."""
_FILE = _Layout("IqqqIIIIIIII", (4, 32, 8, 16, 36, 24, 40, 44, 48, 52, 56, 0, 0, 60))
"""name · offset · size · mode · type · link · uid · gid · user · group · time · records."""
_DEVICE = _Layout("IqqqIIIIIIIIqq", (4, 32, 8, 16, 36, 24, 40, 44, 48, 52, 56, 64, 72, 60))
_RECORD = _Layout("II", (4, 8))
_TAR_ZINFO = _Layout("iqq", (4, 8, 16))
_LAYOUTS = (_ZTOC, _TOC, _COMPRESSION, _FILE, _DEVICE, _RECORD)


class _Pool:
    """Strings, each once; `place` returns where in the pool one lies."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._end = 0

    def place(self, text: bytes) -> int:
        place = self._places.get(text)
        if place is None:
            place = self._places[text] = self._end
            self._end += _aligned(4 + len(text) + 1, 4)
        return place

    @property
    def size(self) -> int:
        """Bytes of all strings, with their lengths and the NULs behind them."""
        return self._end

    def write(self, buffer: bytearray, start: int) -> None:
        for text, place in self._places.items():
            at = start + place
            struct.pack_into("<I", buffer, at, len(text))
            buffer[at + 4 : at + 4 + len(text)] = text


def encode_ztoc(ztoc: Ztoc) -> bytes:
    """Return the zTOC as a flatbuffer. Raises NotIndexableError if it is too large for one."""
    return _Encoder(ztoc).encode()


class _Encoder:
    """Encodes one zTOC: the constructor finds where everything lies, `encode` writes it."""

    def __init__(self, ztoc: Ztoc) -> None:
        self._ztoc = ztoc
        self._zinfo = _tar_zinfo(ztoc) if ztoc.compression == "uncompressed" else _gzip_zinfo(ztoc)
        self._pool = _Pool()
        self._vtables: dict[_Layout, int] = {}
        self._end = 4
        for layout in _LAYOUTS:
            self._vtables[layout] = self._take(len(layout.vtable), 2)
        self._root = self._take(_ZTOC.size, 8)
        self._toc = self._take(_TOC.size)
        self._compression = self._take(_COMPRESSION.size)
        self._digests = self._take(4 + 4 * len(ztoc.span_digests))
        self._files = self._take(4 + 4 * len(ztoc.files))
        self._tables = [self._take((_DEVICE if _is_device(file) else _FILE).size, 8) for file in ztoc.files]
        self._no_records = self._take(4)
        self._records = [self._take_records(file.pax) for file in ztoc.files]
        self._strings = self._take(0)
        self._texts = [self._place_texts(file) for file in ztoc.files]
        for text in self._other_texts():
            self._pool.place(text)
        self._end += self._pool.size
        self._checkpoints = self._take(4 + len(self._zinfo))
        if self._end > _MAX_SIZE:
            raise NotIndexableError(f"its zTOC would have {self._end} bytes, more than {_MAX_SIZE}; use larger spans")

    def encode(self) -> bytes:
        """Return the flatbuffer."""
        buffer = bytearray(_aligned(self._end, 8))
        struct.pack_into("<I", buffer, 0, self._root)
        for layout, at in self._vtables.items():
            buffer[at : at + len(layout.vtable)] = layout.vtable
        self._write_tables(buffer)
        self._write_vector(buffer, self._digests, [self._string(each.encode()) for each in self._ztoc.span_digests])
        self._write_vector(buffer, self._files, self._tables)
        for number, file in enumerate(self._ztoc.files):
            self._write_file(buffer, number)
            self._write_records(buffer, file.pax, self._records[number])
        self._pool.write(buffer, self._strings)
        struct.pack_into("<I", buffer, self._checkpoints, len(self._zinfo))
        buffer[self._checkpoints + 4 : self._checkpoints + 4 + len(self._zinfo)] = self._zinfo
        return bytes(buffer)

    # --- where everything lies ---------------------------------------------------------------------

    def _take(self, size: int, alignment: int = 4) -> int:
        at = _aligned(self._end, alignment)
        self._end = at + size
        return at

    def _take_records(self, records: tuple[tuple[bytes, bytes], ...]) -> int:
        return self._take(4 + (4 + _RECORD.size) * len(records)) if records else self._no_records

    def _place_texts(self, file: FileRecord) -> tuple[int, ...]:
        """Return where the strings of a file lie: name, type, link, user, group and time."""
        texts = (file.name, file.type.encode(), file.linkname, file.uname, file.gname, _time(file.mtime_ns))
        return tuple([self._strings + self._pool.place(text) for text in texts])

    def _other_texts(self) -> Iterable[bytes]:
        yield _VERSION
        yield self._ztoc.build_tool.encode()
        for digest in self._ztoc.span_digests:
            yield digest.encode()
        for file in self._ztoc.files:
            for record in file.pax:
                yield from record

    def _string(self, text: bytes) -> int:
        return self._strings + self._pool.place(text)

    # --- writing -----------------------------------------------------------------------------------

    def _write_tables(self, buffer: bytearray) -> None:
        ztoc, root, info = self._ztoc, self._root, self._compression
        _ZTOC.write(
            buffer,
            root,
            self._vtables[_ZTOC],
            self._string(_VERSION) - (root + 4),
            ztoc.compressed_size,
            ztoc.plain_size,
            self._string(ztoc.build_tool.encode()) - (root + 24),
            self._toc - (root + 28),
            info - (root + 32),
            0,
        )
        _TOC.write(buffer, self._toc, self._vtables[_TOC], self._files - (self._toc + 4))
        _COMPRESSION.write(
            buffer,
            info,
            self._vtables[_COMPRESSION],
            len(ztoc.span_digests) - 1,
            self._digests - (info + 8),
            self._checkpoints - (info + 12),
            _ALGORITHMS[ztoc.compression],
        )

    def _write_vector(self, buffer: bytearray, at: int, targets: list[int]) -> None:
        references = (target - (at + 4 * number) for number, target in enumerate(targets, 1))
        struct.pack_into(f"<I{len(targets)}I", buffer, at, len(targets), *references)

    def _write_file(self, buffer: bytearray, number: int) -> None:
        file, at = self._ztoc.files[number], self._tables[number]
        name, kind, link, user, group, time = self._texts[number]
        layout = _DEVICE if _is_device(file) else _FILE
        layout.write(
            buffer,
            at,
            self._vtables[layout],
            name - (at + 4),
            file.data_offset,
            file.size,
            file.mode,
            kind - (at + 32),
            link - (at + 36),
            file.uid,
            file.gid,
            user - (at + 48),
            group - (at + 52),
            time - (at + 56),
            self._records[number] - (at + 60),
            *((file.devmajor, file.devminor) if layout is _DEVICE else ()),
        )

    def _write_records(self, buffer: bytearray, records: tuple[tuple[bytes, bytes], ...], at: int) -> None:
        if not records:
            return
        first = at + 4 + 4 * len(records)
        tables = [first + _RECORD.size * number for number in range(len(records))]
        self._write_vector(buffer, at, tables)
        for (key, value), table in zip(records, tables, strict=True):
            references = self._string(key) - (table + 4), self._string(value) - (table + 8)
            _RECORD.write(buffer, table, self._vtables[_RECORD], *references)


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _is_device(file: FileRecord) -> bool:
    return bool(file.devmajor or file.devminor)


@functools.lru_cache(maxsize=4096)
def _time(nanoseconds: int) -> bytes:
    """Return a time as RFC 3339 has it, without zeros at the end, as Go writes it."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    # Not fromtimestamp(), which counts in floats.
    whole = datetime.fromtimestamp(seconds, UTC)
    text = f"{whole.year:04}-{whole:%m-%dT%H:%M:%S}"
    return f"{text}.{fraction:09}".rstrip("0").encode() + b"Z" if fraction else f"{text}Z".encode()


def _gzip_zinfo(ztoc: Ztoc) -> bytes:
    """Return the checkpoints as SOCI's zinfo, version 2."""
    header = struct.pack("<Iq", len(ztoc.checkpoints), ztoc.span_size)
    return b"".join([header, *map(_checkpoint, ztoc.checkpoints)])


def _checkpoint(checkpoint: Checkpoint) -> bytes:
    window = checkpoint.window.rjust(WINDOW_SIZE, b"\0")
    return struct.pack("<qqB", checkpoint.in_offset, checkpoint.out_offset, checkpoint.bits) + window


def _tar_zinfo(ztoc: Ztoc) -> bytes:
    """Return the geometry of a plain tar, a flatbuffer of its own."""
    vtable, table = 4, _aligned(4 + len(_TAR_ZINFO.vtable), 8)
    buffer = bytearray(table + _TAR_ZINFO.size)
    struct.pack_into("<I", buffer, 0, table)
    buffer[vtable : vtable + len(_TAR_ZINFO.vtable)] = _TAR_ZINFO.vtable
    _TAR_ZINFO.write(buffer, table, vtable, _TAR_ZINFO_VERSION, ztoc.span_size, ztoc.compressed_size)
    return bytes(buffer)
