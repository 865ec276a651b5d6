"""Make a tree and a chunk table of a table of contents.

Nothing that a TOC says is believed: sizes, offsets, digests, device numbers and names are checked here, once,
and a TOC that does not fit together is refused. As in the Go reader, names are cleaned against the root, a
`chunk` belongs to the file before it, and a chunk without a size reaches to the end of its file. All functions may be
called from any thread.
"""

from __future__ import annotations

import os
import re
import stat
from typing import NoReturn

from lazylayer.api.chunks import ChunkTable
from lazylayer.api.tree import Entry, Tree
from lazylayer.errors import FormatError, VerificationError
from lazylayer_tarlayers.landmarks import LANDMARKS
from lazylayer_tarlayers.modtimes import parse_modtime
from lazylayer_tarlayers.toc import TocEntry
from lazylayer_tarlayers.tocdecoding import MAX_ENTRIES, decode_entries
from lazylayer_tarlayers.treebuilder import TreeBuilder

__all__ = ["read_toc"]

_KINDS = {
    "reg": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
}
_MAX_ID = (1 << 32) - 1
_MAX_MAJOR = (1 << 12) - 1
_MAX_MINOR = (1 << 20) - 1
_MAX_TARGET = 4095
_MAX_XATTR_NAME = 255
_MAX_XATTR_VALUE = 64 * 1024
_MAX_FILE_SIZE = (1 << 63) - 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def read_toc(
    data: bytes, *, blob_size: int, data_end: int, verify: bool, max_entries: int = MAX_ENTRIES
) -> tuple[Tree, ChunkTable]:
    """Return the tree and the chunk table that a TOC describes; `data` is its JSON, checked by the caller.

    Members lie in front of `data_end` in a blob of `blob_size` bytes. With `verify` every chunk must
    have a digest. Raises FormatError for a TOC that is invalid, does not fit together, or has more than
    `max_entries` entries, and VerificationError for a chunk without a digest; the messages name the entry.
    """
    reading = _Reading(ChunkTable(blob_size), verify)
    for entries in decode_entries(data, max_entries):
        for entry in entries:
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
        self._modes: dict[int, int] = {}

    def take(self, toc: TocEntry) -> None:
        """Take the next entry."""
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
            self._begin_file(toc, entry)
        elif kind == "dir":
            entry.children = {}
        elif kind == "symlink":
            _set_target(toc, entry)
        elif kind in ("char", "block"):
            _set_device(toc, entry)
        self.builder.add(name, entry)

    def _new_entry(self, toc: TocEntry) -> Entry:
        kind = _KINDS.get(toc.type)
        if kind is None:
            _refuse(toc, f"unknown type {toc.type[:20]!r}")
        mode = kind | toc.mode & 0o7777
        if not 0 <= toc.uid <= _MAX_ID or not 0 <= toc.gid <= _MAX_ID:
            _refuse(toc, f"invalid owner {toc.uid}:{toc.gid}")
        mtime = self._modtimes.get(toc.modtime)
        if mtime is None:
            mtime = self._modtimes[toc.modtime] = parse_modtime(toc.modtime)
        xattrs = _xattrs(toc) if toc.xattrs else None
        # One integer for all entries of a mode: an object each would take a tenth more memory.
        mode = self._modes.setdefault(mode, mode)
        return Entry(mode, toc.uid, toc.gid, 0, mtime, 0, b"", xattrs)

    def _begin_file(self, toc: TocEntry, entry: Entry) -> None:
        size = toc.size
        if not 0 <= size <= _MAX_FILE_SIZE:
            _refuse(toc, f"invalid size {size}")
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
        """Check that the chunks of the file that was begun are complete."""
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
        _refuse(toc, f"invalid device {toc.dev_major}:{toc.dev_minor}")
    entry.rdev = os.makedev(toc.dev_major, toc.dev_minor)


def _xattrs(toc: TocEntry) -> dict[bytes, bytes]:
    assert toc.xattrs is not None
    xattrs = {_encode(name, toc): value for name, value in toc.xattrs.items()}
    for name, value in xattrs.items():
        if not 0 < len(name) <= _MAX_XATTR_NAME or b"\0" in name or len(value) > _MAX_XATTR_VALUE:
            _refuse(toc, f"invalid extended attribute {name[:80]!r} of {len(value)} bytes")
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
