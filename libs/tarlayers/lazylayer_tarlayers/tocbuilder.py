"""Make the table of contents of a layer that is being built, by the rules of tar.

In an archive a later member replaces an earlier one of the same name, and a hard link stays with the file that
it was made to. A TOC has one entry for each name: a replaced file is left out, or moves to another name
that it has.

Used by one thread.
"""

from __future__ import annotations

from lazylayer.api.tree import clean_path
from lazylayer.errors import BuildError
from lazylayer_tarlayers.modtimes import format_modtime
from lazylayer_tarlayers.tarmember import TarMember
from lazylayer_tarlayers.toc import TocEntry

__all__ = ["TocBuilder"]


class _Node:
    """A file under any of its names: its entry, and those of its further chunks."""

    __slots__ = ("entries", "path")

    def __init__(self, path: bytes, entry: TocEntry) -> None:
        self.path = path
        self.entries = [entry]


class TocBuilder:
    """Collects the members of an archive in their order; `finish` returns the TOC's entries."""

    def __init__(self) -> None:
        self._records: list[tuple[bytes, _Node | None, bytes]] = []
        self._owner: dict[bytes, int] = {}
        self._named_users: set[int] = set()
        self._named_groups: set[int] = set()

    def add(self, member: TarMember) -> TocEntry:
        """Add a member that is not a hard link and return its entry, whose place is set later."""
        path = clean_path(member.name)
        entry = TocEntry(type=member.kind, mode=member.mode, uid=member.uid, gid=member.gid)
        _name(entry, path)
        entry.size = member.size if member.kind == "reg" else 0
        entry.modtime = format_modtime(member.mtime)
        entry.dev_major, entry.dev_minor = member.dev_major, member.dev_minor
        if member.kind == "symlink":
            _name_link(entry, member.link_name)
        if member.xattrs:
            entry.xattrs = {_utf8(name, path): value for name, value in member.xattrs.items()}
        # As the Go builder: a name stands at the first entry of its owner only.
        if member.user_name and member.uid not in self._named_users:
            self._named_users.add(member.uid)
            entry.user_name = member.user_name.decode(errors="replace")
        if member.group_name and member.gid not in self._named_groups:
            self._named_groups.add(member.gid)
            entry.group_name = member.group_name.decode(errors="replace")
        self._record(path, _Node(path, entry), b"")
        return entry

    def add_chunk(self, file: TocEntry, offset: int) -> TocEntry:
        """Add a chunk, `offset` bytes into the file that was added last, and return its entry."""
        entry = TocEntry(file.name, "chunk", chunk_offset=offset, name_bytes=file.name_bytes)
        node = self._records[-1][1]
        assert node is not None
        node.entries.append(entry)
        return entry

    def add_link(self, member: TarMember) -> None:
        """Add a hard link, whose target may come later."""
        path, target = clean_path(member.name), clean_path(member.link_name)
        known = self._owner.get(target)
        if known is None:
            self._record(path, None, target)
        elif path != target:
            self._record(path, *self._records[known][1:])

    def finish(self) -> list[TocEntry]:
        """Return the entries, in the order of the archive. Raises BuildError for links that lead nowhere."""
        living: list[tuple[bytes, _Node]] = []
        for number, (path, node, target) in enumerate(self._records):
            if self._owner[path] == number:
                living.append((path, node or self._follow(path, target)))
        primary: dict[_Node, bytes] = {}
        for path, node in living:
            if path == node.path or node not in primary:
                primary[node] = path
        entries: list[TocEntry] = []
        for path, node in living:
            if primary[node] == path:
                if path != node.path:
                    for entry in node.entries:
                        _name(entry, path)
                entries += node.entries
            else:
                link = TocEntry(type="hardlink")
                _name(link, path)
                _name_link(link, primary[node])
                entries.append(link)
        return entries

    def _record(self, path: bytes, node: _Node | None, target: bytes) -> None:
        self._owner[path] = len(self._records)
        self._records.append((path, node, target))

    def _follow(self, path: bytes, target: bytes) -> _Node:
        passed = {path}
        while target in self._owner and target not in passed:
            passed.add(target)
            _, node, further = self._records[self._owner[target]]
            if node is not None:
                return node
            target = further
        raise BuildError(f"hard link {path!r} leads to {target!r}, which is not in the layer")


def _name(entry: TocEntry, path: bytes) -> None:
    if entry.type == "dir":
        path = path + b"/" if path else b"./"
    entry.name, entry.name_bytes = _text(path)


def _name_link(entry: TocEntry, target: bytes) -> None:
    entry.link_name, entry.link_name_bytes = _text(target)


def _text(path: bytes) -> tuple[str, bytes]:
    """Return a path as text, and as bytes if the text is not exact."""
    try:
        return path.decode(), b""
    except UnicodeDecodeError:
        return path.decode(errors="replace"), path


def _utf8(name: bytes, path: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise BuildError(f"{path!r}: its extended attribute {name!r} has a name that is not UTF-8") from None
