"""Facts about a directory tree, entry by entry, and the differences of two trees."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
"""Types of entries in words."""
_SHOWN_BYTES = 100
_SHOWN_DIFFERENCES = 100


@dataclass(frozen=True)
class Visit:
    """One entry of a walk. `parent` is open only until the walk goes on."""

    name: bytes
    """From the tree's root; the root itself is `b"."`."""
    parent: int
    base: bytes
    status: os.stat_result


@dataclass(frozen=True)
class EntryFacts:
    """The facts of one entry. None means that the fact does not apply to its type, or is not known."""

    kind: str
    """A type in words; `whiteout` is overlayfs's 0/0 character device, of which nothing else counts."""
    mode: int | None = None
    """Permission, set-id and sticky bits."""
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    """Bytes of a file, or of a symlink's text."""
    mtime: int | None = None
    """Seconds since 1970, rounded as eStargz's TOC rounds them. None is equal to any."""
    device: tuple[int, int] | None = None
    """Major and minor."""
    target: bytes | None = None
    links: int | None = None
    """The link count, of all but directories."""
    same_file: tuple[bytes, ...] = ()
    """All the names in this tree, itself included, that are one file, when there are several."""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    sha256: str | None = None


TreeFacts = dict[bytes, EntryFacts]


def walk(root: Path) -> Iterator[Visit]:
    """Visit every entry below and with `root`, parents first, names sorted, crossing no symlink.

    Only one directory is open at a time, and each is opened from its parent, so that a tree may be
    deeper than the longest path and than the number of open files.
    """
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Visit(b".", directory, b".", os.fstat(directory))
        pending = [(b"", _names(directory))]
        while pending:
            prefix, names = pending[-1]
            if not names:
                pending.pop()
                if pending:
                    directory = _move(directory, b"..")
                continue
            base = names.pop()
            status = os.lstat(base, dir_fd=directory)
            yield Visit(prefix + base, directory, base, status)
            if stat.S_ISDIR(status.st_mode):
                directory = _move(directory, base)
                pending.append((prefix + base + b"/", _names(directory)))
    finally:
        os.close(directory)


def snapshot_tree(root: Path, *, unknown_mtimes: Collection[bytes] = ()) -> TreeFacts:
    """Collect the facts of every entry below and with `root`, by name; reads every file.

    The modification times of the entries named in `unknown_mtimes` are left out.
    """
    facts: TreeFacts = {}
    names_of: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    for visit in walk(root):
        entry = _facts(visit)
        if visit.name in unknown_mtimes:
            entry = replace(entry, mtime=None)
        facts[visit.name] = entry
        if entry.kind not in ("directory", "whiteout"):
            names_of[visit.status.st_dev, visit.status.st_ino].append(visit.name)
    for names in names_of.values():
        if len(names) > 1:
            for name in names:
                facts[name] = replace(facts[name], same_file=tuple(sorted(names)))
    return facts


def differences(
    expected: Mapping[bytes, EntryFacts],
    actual: Mapping[bytes, EntryFacts],
    *,
    ignore: Collection[str] = (),
) -> list[str]:
    """Say, a line for each, where `actual` is not as `expected`; an empty list when they are equal.

    `ignore` names fields of EntryFacts that may differ.
    """
    compared = [field.name for field in fields(EntryFacts) if field.name not in ignore]
    lines: list[str] = []
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            lines.append(f"{_show(name)}: missing, expected a {expected[name].kind}")
        elif name not in expected:
            lines.append(f"{_show(name)}: unexpected {actual[name].kind}")
        else:
            lines += [f"{_show(name)}: {line}" for line in _differing(expected[name], actual[name], compared)]
    if len(lines) > _SHOWN_DIFFERENCES:
        lines[_SHOWN_DIFFERENCES:] = [f"… and {len(lines) - _SHOWN_DIFFERENCES} more differences"]
    return lines


def _names(directory: int) -> list[bytes]:
    # Sorted backwards, since names are taken from the end.
    return sorted((os.fsencode(name) for name in os.listdir(directory)), reverse=True)


def _move(directory: int, name: bytes) -> int:
    moved = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    os.close(directory)
    return moved


def _facts(visit: Visit) -> EntryFacts:
    status = visit.status
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFCHR and status.st_rdev == 0:
        return EntryFacts(kind="whiteout")
    is_file = kind == stat.S_IFREG
    is_symlink = kind == stat.S_IFLNK
    is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
    return EntryFacts(
        kind=KINDS[kind],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if is_file or is_symlink else None,
        mtime=(status.st_mtime_ns + 500_000_000) // 1_000_000_000,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else None,
        target=os.readlink(visit.base, dir_fd=visit.parent) if is_symlink else None,
        links=status.st_nlink if kind != stat.S_IFDIR else None,
        xattrs=_xattrs(visit),
        sha256=_sha256(visit) if is_file else None,
    )


def _xattrs(visit: Visit) -> tuple[tuple[str, bytes], ...]:
    path = b"/proc/self/fd/%d/%s" % (visit.parent, visit.base)
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)


def _sha256(visit: Visit) -> str:
    descriptor = os.open(visit.base, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=visit.parent)
    with os.fdopen(descriptor, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _differing(expected: EntryFacts, actual: EntryFacts, compared: Collection[str]) -> Iterator[str]:
    if expected.kind != actual.kind:
        yield f"is a {actual.kind}, expected a {expected.kind}"
        return
    for field in compared:
        wanted, found = getattr(expected, field), getattr(actual, field)
        if wanted == found or (field == "mtime" and None in (wanted, found)):
            continue
        if field == "xattrs":
            yield from _differing_xattrs(dict(expected.xattrs), dict(actual.xattrs))
        else:
            yield f"{field} is {_show(found, field)}, expected {_show(wanted, field)}"


def _differing_xattrs(expected: Mapping[str, bytes], actual: Mapping[str, bytes]) -> Iterator[str]:
    for key in sorted(expected.keys() | actual.keys()):
        if expected.get(key) != actual.get(key):
            yield f"xattr {key} is {_show(actual.get(key))}, expected {_show(expected.get(key))}"


def _show(value: object, field: str = "") -> str:
    if isinstance(value, tuple) and field == "same_file":
        return "[" + ", ".join(_show(name) for name in value) + "]"
    if isinstance(value, bytes):
        text = value[:_SHOWN_BYTES].decode(errors="backslashreplace")
        text = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
        return text if len(value) <= _SHOWN_BYTES else f"{text}… ({len(value)} bytes)"
    if isinstance(value, int) and field == "mode":
        return f"{value:04o}"
    return str(value)
