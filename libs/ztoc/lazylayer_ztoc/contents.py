"""Make the tree and the chunk table of a layer out of its zTOC.

Names are cleaned against the root, and later entries replace earlier ones, as for every archive. A span is a sealed
member; a file's chunks are its parts of each span.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from typing import NoReturn

from lazylayer.api.chunks import ChunkTable, Seal
from lazylayer.api.tree import Entry, Tree
from lazylayer.errors import FormatError
from lazylayer_tarlayers.tarmember import XATTR
from lazylayer_tarlayers.treebuilder import TreeBuilder
from lazylayer_ztoc.model import FileRecord, Ztoc

__all__ = ["read_contents"]

_KINDS = {
    "reg": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "fifo": stat.S_IFIFO,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
}
_SPARSE = b"GNU.sparse."
_MAX_ID = (1 << 32) - 1
_MAX_MAJOR = (1 << 12) - 1
_MAX_MINOR = (1 << 20) - 1
_MAX_TARGET = 4095
_MAX_XATTR_NAME = 255
_MAX_XATTR_VALUE = 64 * 1024


def read_contents(ztoc: Ztoc) -> tuple[Tree, ChunkTable]:
    """Return the tree and the chunk table that a zTOC describes. Raises FormatError, which names the entry."""
    reading = _Reading(ztoc)
    # SOCI's reader takes them in this order too; entries of one name replace each other.
    for record in sorted(ztoc.files, key=lambda each: each.data_offset):
        reading.take(record)
    reading.table.finish(ztoc.compressed_size)
    return reading.builder.finish(), reading.table


class _Reading:
    """Turns file records into entries and chunks, one after the other."""

    def __init__(self, ztoc: Ztoc) -> None:
        self.table = ChunkTable(ztoc.compressed_size)
        self.builder = TreeBuilder()
        self._ztoc = ztoc
        self._begins = [each.out_offset for each in ztoc.checkpoints]
        self._starts = [ztoc.span_range(number).start for number in range(len(ztoc.checkpoints))]
        self._sealed: set[int] = set()
        self._reached = 0
        self._modes: dict[int, int] = {}

    def take(self, record: FileRecord) -> None:
        """Take the next record."""
        if record.type == "hardlink":
            self.builder.link(record.name, record.linkname)
            return
        kind = _KINDS.get(record.type)
        if kind is None:
            _refuse(record, f"unknown type {record.type[:20]!r}")
        if not 0 <= record.uid <= _MAX_ID or not 0 <= record.gid <= _MAX_ID:
            _refuse(record, f"invalid owner {record.uid}:{record.gid}")
        xattrs = _xattrs(record) if record.pax else None
        mode = kind | record.mode & 0o7777
        # One integer for all entries of a mode: an object each would take a tenth more memory.
        mode = self._modes.setdefault(mode, mode)
        entry = Entry(mode, record.uid, record.gid, 0, record.mtime_ns, 0, b"", xattrs)
        if kind == stat.S_IFREG:
            self._add_chunks(record, entry)
        elif kind == stat.S_IFDIR:
            entry.children = {}
        elif kind == stat.S_IFLNK:
            entry.target, entry.size = record.linkname, len(record.linkname)
            if not 0 < entry.size <= _MAX_TARGET or b"\0" in entry.target:
                _refuse(record, f"a link to a path of {entry.size} bytes")
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            if not 0 <= record.devmajor <= _MAX_MAJOR or not 0 <= record.devminor <= _MAX_MINOR:
                _refuse(record, f"invalid device {record.devmajor}:{record.devminor}")
            entry.rdev = os.makedev(record.devmajor, record.devminor)
        self.builder.add(record.name, entry)

    def _add_chunks(self, record: FileRecord, entry: Entry) -> None:
        start, end = record.data_offset, record.data_offset + record.size
        entry.size = record.size
        if not record.size:
            return
        if record.size < 0 or not self._reached <= start < end <= self._ztoc.plain_size:
            place = f"{self._reached} to {self._ztoc.plain_size}"
            _refuse(record, f"{record.size} bytes at {start} do not lie in the tar's bytes {place}")
        self._reached = end
        entry.first_chunk = len(self.table)
        span, at = bisect_right(self._begins, start) - 1, start
        while at < end:
            begin, limit = self._ztoc.plain_range(span)
            size = min(end, limit) - at
            if span not in self._sealed:
                self._seal(span)
            try:
                self.table.append(
                    offset=self._starts[span], inner=at - begin, file_offset=at - start, size=size, digest=b""
                )
            except FormatError as error:
                _refuse(record, str(error))
            entry.chunk_count += 1
            span, at = span + 1, at + size

    def _seal(self, span: int) -> None:
        ztoc = self._ztoc
        digest = bytes.fromhex(ztoc.span_digests[span][7:])
        self.table.seal(self._starts[span], Seal(ztoc.span_range(span).end, ztoc.plain_range(span).size, digest))
        self._sealed.add(span)


def _xattrs(record: FileRecord) -> dict[bytes, bytes] | None:
    xattrs: dict[bytes, bytes] = {}
    for key, value in record.pax:
        if key.startswith(_SPARSE):
            _refuse(record, "a sparse file, whose holes a zTOC does not tell; unpack the layer as a whole")
        if key.startswith(XATTR):
            name = key[len(XATTR) :]
            if not 0 < len(name) <= _MAX_XATTR_NAME or b"\0" in name or len(value) > _MAX_XATTR_VALUE:
                _refuse(record, f"invalid extended attribute {name[:80]!r} of {len(value)} bytes")
            xattrs[name] = value
    return xattrs or None


def _refuse(record: FileRecord, why: str) -> NoReturn:
    raise FormatError(f"the zTOC lies about {record.name[:200]!r}: {why}")
