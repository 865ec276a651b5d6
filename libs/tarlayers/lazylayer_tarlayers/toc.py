"""The table of contents (TOC) that eStargz, legacy stargz and zstd:chunked layers carry, as JSON.

Source: the eStargz specification of the Go stargz-snapshotter (docs/estargz.md), and its reader
where that says more: names are cleaned against the root, a `chunk` belongs to the file before it, a
chunk without a size reaches to the end of its file.

Nothing that a TOC says is believed: sizes, offsets, digests, device numbers and names are checked
here, once, and what does not fit together is refused. All functions may be called from any thread.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import NoReturn

import msgspec

from lazylayer.api.chunks import ChunkTable
from lazylayer.api.tree import Entry, Tree
from lazylayer.api.treebuilder import TreeBuilder
from lazylayer.errors import FormatError, VerificationError
from lazylayer_tarlayers.landmarks import LANDMARKS

__all__ = [
    "MAX_TOC_SIZE",
    "TOC_NAME",
    "Toc",
    "TocEntry",
    "decode_toc",
    "encode_toc",
    "format_modtime",
    "parse_modtime",
    "read_toc",
    "tail_size",
]

TOC_NAME = "stargz.index.json"
"""The name of the TOC's entry in a layer's tar archive; it is no part of the tree."""

MAX_TOC_SIZE = 256 * 1024 * 1024
"""Bytes of JSON; more is not believed. About 700,000 entries."""

_TAIL_MIN = 64 * 1024
_TAIL_MAX = 2 * 1024 * 1024
_TAIL_FRACTION = 160

_MAX_ID = (1 << 32) - 1
_MAX_MAJOR = (1 << 12) - 1
_MAX_MINOR = (1 << 20) - 1
_MAX_TARGET = 4095
_MAX_XATTR_NAME = 255
_MAX_XATTR_VALUE = 64 * 1024
_MAX_FILE_SIZE = (1 << 63) - 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MODTIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)")
_LAST_SECOND = 253_402_300_799


class TocEntry(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """One entry of a TOC, as it is written. Offsets and sizes in bytes.

    `name_bytes` and `link_name_bytes` are an addition of lazylayer: JSON cannot hold a name that is
    not UTF-8, so it is there a second time, exact. Readers that do not know them are shown `name`.
    """

    name: str = ""
    type: str = ""
    size: int = 0
    modtime: str = ""
    link_name: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    user_name: str = ""
    group_name: str = ""
    offset: int = 0
    """Where the member that holds the data starts in the blob."""
    inner_offset: int = 0
    """Where the data starts in the inflated member."""
    dev_major: int = 0
    dev_minor: int = 0
    xattrs: dict[str, bytes] | None = None
    digest: str = ""
    chunk_offset: int = 0
    chunk_size: int = 0
    chunk_digest: str = ""
    name_bytes: bytes = b""
    link_name_bytes: bytes = b""


class Toc(msgspec.Struct):
    """A table of contents."""

    version: int
    entries: list[TocEntry]


_decoder = msgspec.json.Decoder(Toc)


def tail_size(blob_size: int) -> int:
    """How many bytes from the end of a blob to read, so that most TOCs come with the footer at once.

    All formats that ask here read the same range, so that it is fetched once.
    """
    return min(max(blob_size // _TAIL_FRACTION, _TAIL_MIN), _TAIL_MAX, blob_size)


def decode_toc(data: bytes) -> Toc:
    """The TOC that JSON holds. Raises FormatError."""
    if len(data) > MAX_TOC_SIZE:
        raise FormatError(f"a table of contents of {len(data)} bytes is larger than {MAX_TOC_SIZE}")
    try:
        toc = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise FormatError(f"the table of contents cannot be read: {error}") from error
    if toc.version != 1:
        raise FormatError(f"the table of contents has version {toc.version}; only version 1 is known")
    return toc


def encode_toc(entries: Sequence[TocEntry]) -> bytes:
    """The JSON of a TOC of these entries; the same entries always give the same bytes."""
    return msgspec.json.encode(Toc(1, list(entries)))


def parse_modtime(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time; 0 for what is none, as the Go reader has it."""
    match = _MODTIME.fullmatch(text)
    if match is None:
        return 0
    try:
        moment = datetime.fromisoformat(match[1] + match[3])
        seconds = round((moment - _EPOCH).total_seconds())
    except (ValueError, OverflowError):
        return 0
    return seconds * 1_000_000_000 + int((match[2] or "").ljust(9, "0"))


@lru_cache(maxsize=4096)
def format_modtime(mtime: int) -> str:
    """The RFC 3339 time of `mtime` nanoseconds since 1970; empty for 1970 itself.

    Times that have no four-digit year are moved to the nearest that has one.
    """
    seconds, nanoseconds = divmod(mtime, 1_000_000_000)
    if not mtime:
        return ""
    seconds = max(-62_135_596_800, min(seconds, _LAST_SECOND))
    fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    # Not datetime.fromtimestamp: it depends on what the platform's C library can do.
    days, rest = divmod(seconds, 86_400)
    day = date.fromordinal(719_163 + days).isoformat()
    return f"{day}T{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}{fraction}Z"


def read_toc(data: bytes, *, blob_size: int, data_end: int, verify: bool) -> tuple[Tree, ChunkTable]:
    """The tree and the chunk table that a TOC describes; `data` is its JSON, checked by the caller.

    Members lie in front of `data_end` in a blob of `blob_size` bytes. With `verify` every chunk must
    have a digest. Raises FormatError for what cannot be or does not fit together, and
    VerificationError for a chunk without a digest; the messages name the entry.
    """
    reading = _Reading(ChunkTable(blob_size), verify)
    for entry in decode_toc(data).entries:
        reading.take(entry)
    reading.end_file()
    reading.table.finish(data_end)
    return reading.builder.finish(), reading.table


class _Reading:
    """Turns TOC entries into tree entries and chunks, one after the other."""

    def __init__(self, table: ChunkTable, verify: bool) -> None:
        self.table = table
        self.builder = TreeBuilder(LANDMARKS)
        self._verify = verify
        self._file: Entry | None = None
        self._file_name = ""
        self._reached = 0
        self._modtimes: dict[str, int] = {"": 0}

    def take(self, toc: TocEntry) -> None:
        kind = toc.type
        if kind == "chunk":
            if self._file is None:
                _refuse(toc, "a chunk that follows no file")
            self._add_chunk(toc, self._file)
            return
        if self._file is not None:
            self.end_file()
        name = toc.name_bytes or _encode(toc.name, toc)
        if kind == "hardlink":
            self.builder.link(name, toc.link_name_bytes or _encode(toc.link_name, toc))
            return
        entry = self._new_entry(toc)
        if kind == "reg":
            entry.mode |= stat.S_IFREG
            self._begin_file(toc, entry)
        elif kind == "dir":
            entry.mode |= stat.S_IFDIR
            entry.children = {}
        elif kind == "symlink":
            entry.mode |= stat.S_IFLNK
            _set_target(toc, entry)
        elif kind == "fifo":
            entry.mode |= stat.S_IFIFO
        elif kind in ("char", "block"):
            entry.mode |= stat.S_IFCHR if kind == "char" else stat.S_IFBLK
            _set_device(toc, entry)
        else:
            _refuse(toc, f"an entry of the unknown type {kind[:20]!r}")
        self.builder.add(name, entry)

    def _new_entry(self, toc: TocEntry) -> Entry:
        if not 0 <= toc.uid <= _MAX_ID or not 0 <= toc.gid <= _MAX_ID:
            _refuse(toc, f"the owner {toc.uid}:{toc.gid} cannot be")
        mtime = self._modtimes.get(toc.modtime)
        if mtime is None:
            mtime = self._modtimes[toc.modtime] = parse_modtime(toc.modtime)
        xattrs = _xattrs(toc) if toc.xattrs else None
        return Entry(toc.mode & 0o7777, toc.uid, toc.gid, 0, mtime, 0, b"", xattrs)

    def _begin_file(self, toc: TocEntry, entry: Entry) -> None:
        size = toc.size
        if not 0 <= size <= _MAX_FILE_SIZE:
            _refuse(toc, f"the size {size} cannot be")
        if not size:
            return
        entry.size = size
        entry.first_chunk = len(self.table)
        self._file, self._file_name, self._reached = entry, toc.name, 0
        self._add_chunk(toc, entry)

    def _add_chunk(self, toc: TocEntry, file: Entry) -> None:
        reached = self._reached
        if toc.chunk_offset != reached:
            self._refuse_chunk(f"a chunk begins at {toc.chunk_offset}, not at {reached}")
        # A chunk without a size is the last one.
        size = toc.chunk_size or file.size - reached
        self._reached = reached + size
        if size <= 0 or self._reached > file.size:
            self._refuse_chunk(f"a chunk of {size} bytes at {reached} does not fit in the file's {file.size}")
        # The Go builder gives a file of one chunk both digests, older ones only the file's.
        digest = toc.chunk_digest or (toc.digest if size == file.size else "")
        if digest:
            if not _DIGEST.fullmatch(digest):
                self._refuse_chunk(f"{digest[:80]!r} is not a sha256 digest")
        elif self._verify:
            raise VerificationError(f"{_show(self._file_name)}: its data has no digest to verify it by")
        try:
            self.table.append(
                offset=toc.offset,
                inner=toc.inner_offset,
                file_offset=reached,
                size=size,
                digest=bytes.fromhex(digest[7:]),
            )
        except FormatError as error:
            raise FormatError(f"{_show(self._file_name)}: {error}") from None
        file.chunk_count += 1

    def end_file(self) -> None:
        """Called behind a file's last chunk."""
        if self._file is not None and self._reached != self._file.size:
            self._refuse_chunk(f"its chunks hold {self._reached} bytes, not {self._file.size}")
        self._file = None

    def _refuse_chunk(self, why: str) -> NoReturn:
        raise FormatError(f"the table of contents lies about {_show(self._file_name)}: {why}")


def _set_target(toc: TocEntry, entry: Entry) -> None:
    entry.target = toc.link_name_bytes or _encode(toc.link_name, toc)
    entry.size = len(entry.target)
    if entry.size > _MAX_TARGET:
        _refuse(toc, f"a link to a path of {entry.size} bytes, more than {_MAX_TARGET}")
    if b"\0" in entry.target:
        _refuse(toc, "a link to a path with a NUL byte")


def _set_device(toc: TocEntry, entry: Entry) -> None:
    if not 0 <= toc.dev_major <= _MAX_MAJOR or not 0 <= toc.dev_minor <= _MAX_MINOR:
        _refuse(toc, f"the device {toc.dev_major}:{toc.dev_minor} cannot be")
    entry.rdev = os.makedev(toc.dev_major, toc.dev_minor)


def _xattrs(toc: TocEntry) -> dict[bytes, bytes]:
    assert toc.xattrs is not None
    xattrs = {_encode(name, toc): value for name, value in toc.xattrs.items()}
    for name, value in xattrs.items():
        if not 0 < len(name) <= _MAX_XATTR_NAME or b"\0" in name or len(value) > _MAX_XATTR_VALUE:
            _refuse(toc, f"the extended attribute {name[:80]!r} of {len(value)} bytes cannot be")
    return xattrs


def _encode(text: str, toc: TocEntry) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        _refuse(toc, "a name that is not Unicode")


def _refuse(toc: TocEntry, why: str) -> NoReturn:
    raise FormatError(f"the table of contents lies about {_show(toc.name)}: {why}")


def _show(name: str) -> str:
    return repr(name[:200])
