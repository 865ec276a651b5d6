"""Compare a tar archive with the tree that a table of contents shows of it.

The TOC is what a lazy mount shows, the archive is what every other runtime unpacks. They must not differ.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator

from lazylayer.api.chunks import ChunkTable
from lazylayer.api.tree import Entry, Tree, clean_path
from lazylayer_tarlayers.sparse import SparseContent
from lazylayer_tarlayers.tarmember import MemberKind, Readable, TarMember
from lazylayer_tarlayers.tarreader import TarReader
from lazylayer_tarlayers.treebuilder import TreeBuilder

__all__ = ["ArchiveComparison", "entry_differences"]

_PIECE = 1024 * 1024
_KINDS: dict[MemberKind, int] = {
    "reg": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}
_NAMES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
}
_SECOND = 1_000_000_000


class ArchiveComparison:
    """The comparison of an archive with a tree of it and the tree's chunks. Used by one thread.

    Files of the names `hidden` in the archive's root are passed over.
    """

    def __init__(self, tree: Tree, chunks: ChunkTable, hidden: Collection[bytes]) -> None:
        self._tree = tree
        self._chunks = chunks
        self._hidden = frozenset(hidden)
        self._checked: dict[int, int] = {}
        self.unresolved: dict[int, tuple[bytes, Entry]] = {}
        """Files whose content `compare` could not see: by number of member, the path and the entry shown.

        The archive has their content under a name that another member takes later.
        """

    def compare(self, archive: Readable) -> Iterator[str]:
        """Yield each difference in words, the path first: headers, and contents against chunk digests.

        The archive is read to its last member. Raises FormatError and BuildError if it cannot be read.
        """
        builder = TreeBuilder()
        different: dict[int, str] = {}
        reader = TarReader(archive)
        for number, member in enumerate(reader):
            path = clean_path(member.name)
            if path in self._hidden:
                continue
            if member.kind == "hardlink":
                builder.link(path, member.link_name)
                continue
            builder.add(path, _entry(member, number))
            shown = self._tree.lookup(path)
            if shown is not None and member.kind == "reg" and shown.is_file and shown.size == member.size:
                self._checked[number] = shown.ino
                if difference := self._content_difference(member, reader, shown):
                    different[number] = difference
        for path, one, other in _pairs(builder.finish(), self._tree):
            where = f"/{os.fsdecode(path)}"
            yield from (f"{where}: {what}" for what in _header_differences(one, other))
            if one is not None and other is not None and one.is_file and other.is_file and one.size == other.size > 0:
                if self._checked.get(one.first_chunk) != other.ino:
                    self.unresolved[one.first_chunk] = path, other
                elif one.first_chunk in different:
                    yield f"{where}: {different[one.first_chunk]}"

    def compare_unresolved(self, archive: Readable) -> Iterator[str]:
        """Yield the differences of contents that `compare` left; the archive is read once more."""
        reader = TarReader(archive)
        for number, member in enumerate(reader):
            if number in self.unresolved:
                path, shown = self.unresolved[number]
                if difference := self._content_difference(member, reader, shown):
                    yield f"/{os.fsdecode(path)}: {difference}"

    def _content_difference(self, member: TarMember, reader: TarReader, shown: Entry) -> str:
        """Return how the content of a file differs from the chunks of an entry; empty if it does not."""
        read = SparseContent(member, reader).read if member.sparse is not None else reader.read
        for number in range(shown.first_chunk, shown.first_chunk + shown.chunk_count):
            offset, size = self._chunks.place(number)
            promised, found = self._chunks.digest(number), _digest(read, size)
            if promised and promised != found:
                return f"the chunk at {offset} is not the content that the archive has"
        return ""


def _entry(member: TarMember, number: int) -> Entry:
    """Return the entry that a header describes, with the number of its member in place of a chunk's."""
    entry = Entry(_KINDS[member.kind] | member.mode, member.uid, member.gid, member.size, member.mtime)
    entry.first_chunk, entry.xattrs = number, member.xattrs
    if member.kind == "dir":
        entry.children = {}
    elif member.kind == "symlink":
        entry.target, entry.size = member.link_name, len(member.link_name)
    elif member.kind in ("char", "block"):
        entry.rdev = os.makedev(member.dev_major, member.dev_minor)
    return entry


def _digest(read: Callable[[int], bytes], size: int) -> bytes:
    digest = hashlib.sha256()
    while size and (piece := read(min(size, _PIECE))):
        digest.update(piece)
        size -= len(piece)
    return digest.digest()


def _pairs(one: Tree, other: Tree) -> Iterator[tuple[bytes, Entry | None, Entry | None]]:
    """Yield every path of two trees with the entries that they have there, parents first."""
    stack: list[tuple[bytes, Entry | None, Entry | None]] = [(b"", one.root, other.root)]
    while stack:
        path, here, there = stack.pop()
        yield path, here, there
        below, beside = (here.children if here else None) or {}, (there.children if there else None) or {}
        prefix = path + b"/" if path else b""
        for name in sorted(below.keys() | beside.keys(), reverse=True):
            stack.append((prefix + name, below.get(name), beside.get(name)))


def _header_differences(archive: Entry | None, shown: Entry | None) -> Iterator[str]:
    if archive is None:
        yield "only the table of contents has it"
    elif shown is None:
        yield "only the archive has it"
    elif not archive.implicit:
        yield from (f"{what} (archive → table)" for what in entry_differences(archive, _rounded(archive, shown)))
    elif what := _made_up(shown):
        yield f"only the table of contents describes it, with {what}"


def _rounded(one: Entry, other: Entry) -> Entry:
    """Return `other` with the time of `one` if its own is that time, rounded to a second as by the Go builder."""
    if other.mtime != one.mtime and other.mtime % _SECOND == 0 and abs(other.mtime - one.mtime) < _SECOND:
        other = Entry(**{name: getattr(other, name) for name in Entry.__struct_fields__})
        other.mtime = one.mtime
    return other


def _made_up(other: Entry) -> str:
    """Return what is dangerous in a directory that the archive only implies; empty if nothing is."""
    if not other.is_directory:
        return "another type"
    return f"mode {stat.S_IMODE(other.mode):04o}" if other.mode & 0o7022 else ""


def entry_differences(one: Entry, other: Entry, *, times: bool = True) -> Iterator[str]:
    """Yield how two entries differ, in words, `one` first; the contents of files are not compared."""
    kind, another = stat.S_IFMT(one.mode), stat.S_IFMT(other.mode)
    if kind != another:
        yield f"type {_NAMES[kind]} → {_NAMES[another]}"
        return
    if one.mode != other.mode:
        yield f"mode {stat.S_IMODE(one.mode):04o} → {stat.S_IMODE(other.mode):04o}"
    if (one.uid, one.gid) != (other.uid, other.gid):
        yield f"owner {one.uid}:{one.gid} → {other.uid}:{other.gid}"
    if times and one.mtime != other.mtime:
        yield f"mtime {one.mtime / 1e9:.9f} → {other.mtime / 1e9:.9f}"
    if one.target != other.target:
        yield f"target {os.fsdecode(one.target)!r} → {os.fsdecode(other.target)!r}"
    if one.rdev != other.rdev:
        yield f"device {one.rdev:#x} → {other.rdev:#x}"
    if (one.xattrs or {}) != (other.xattrs or {}):
        yield "extended attributes"
    if one.children is None and one.nlink != other.nlink:
        yield f"links {one.nlink} → {other.nlink}"
    if one.is_file and one.size != other.size:
        yield f"size {one.size} → {other.size}"
    if (one.opaque, one.whiteout) != (other.opaque, other.whiteout):
        yield "whiteouts"
