"""Looks at a mount with plain system calls and says where it differs from its tree."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from lazylayer.api.tree import Entry
from lazylayer_testing.frontend.trees import SampleTree, shown_xattrs

__all__ = ["differences", "read_whole"]

_PIECE = 1024 * 1024
_READ_WHOLE = 64 * 1024 * 1024


def differences(tree: SampleTree, mountpoint: str, *, content: bool = True) -> list[str]:
    """List the differences between a mount and its tree, one line each."""
    found: list[str] = []
    descriptor = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found += _entry_differences(tree, tree.tree.root, descriptor, b".", content=content)
    finally:
        os.close(descriptor)
    pending: list[tuple[bytes, Entry]] = [(b"", tree.tree.root)]
    while pending:
        path, directory = pending.pop()
        parent = _open_deep(mountpoint, path)
        try:
            lines = list(_directory_differences(tree, directory, parent, content=content))
        finally:
            os.close(parent)
        found += [f"{path!r}: {line}" for line in lines]
        children = directory.children or {}
        pending += [(path + b"/" + name, child) for name, child in children.items() if child.is_directory]
    return found


def _open_deep(mountpoint: str, path: bytes) -> int:
    """Open a directory step by step: its path may be longer than one system call accepts."""
    descriptor = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    for name in path.split(b"/"):
        if name:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
    return descriptor


def _directory_differences(tree: SampleTree, directory: Entry, parent: int, *, content: bool) -> Iterator[str]:
    children = directory.children or {}
    with os.scandir(parent) as listing:
        listed = [
            (os.fsencode(each.name), each.inode(), each.is_dir(follow_symlinks=False), each.is_symlink())
            for each in listing
        ]
    if [name for name, *_ in listed] != list(children):
        missing = sorted(children.keys() - {name for name, *_ in listed})
        unexpected = sorted({name for name, *_ in listed} - children.keys())
        yield f"the listing is wrong: missing {missing[:5]}, unexpected {unexpected[:5]}, or not sorted"
        return
    for name, inode, is_directory, is_symlink in listed:
        entry = children[name]
        if (is_directory, is_symlink) != (entry.is_directory, entry.is_symlink):
            yield f"{name!r} is listed with a wrong type"
        yield from _entry_differences(tree, entry, parent, name, content=content, inode=inode)


def _entry_differences(
    tree: SampleTree, entry: Entry, parent: int, name: bytes, *, content: bool, inode: int | None = None
) -> Iterator[str]:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    expected = {
        "mode": (status.st_mode, entry.mode),
        "uid": (status.st_uid, entry.uid),
        "gid": (status.st_gid, entry.gid),
        "mtime": (status.st_mtime_ns, entry.mtime),
        "nlink": (status.st_nlink, entry.nlink),
        "rdev": (status.st_rdev, entry.rdev),
    }
    if entry.is_file or entry.is_symlink:
        expected["size"] = (status.st_size, entry.size)
    if inode is not None:
        expected["listed inode"] = (inode, status.st_ino)
    for what, (is_, should_be) in expected.items():
        if is_ != should_be:
            yield f"{name!r}: {what} is {is_}, should be {should_be}"
    if entry.is_symlink and (target := os.readlink(name, dir_fd=parent)) != entry.target:
        yield f"{name!r}: leads to {target!r}, should lead to {entry.target!r}"
    yield from _xattr_differences(entry, parent, name)
    if content and entry.is_file and entry.size <= _READ_WHOLE:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            data = read_whole(descriptor)
        finally:
            os.close(descriptor)
        if data != tree.content(entry, 0, entry.size):
            yield f"{name!r}: wrong content, {hashlib.sha256(data).hexdigest()}, {len(data)} of {entry.size} bytes"


def _xattr_differences(entry: Entry, parent: int, name: bytes) -> Iterator[str]:
    path = b"/proc/self/fd/%d/%s" % (parent, name)
    listed = [os.fsencode(each) for each in os.listxattr(path, follow_symlinks=False)]
    expected = shown_xattrs(entry)
    if sorted(listed) != sorted(expected):
        yield f"{name!r}: xattrs are {sorted(listed)[:9]}, should be {sorted(expected)[:9]}"
        return
    if entry.opaque and listed[0] != next(iter(expected)):
        yield f"{name!r}: the mark of an opaque directory is not listed first"
    for each in listed:
        value = os.getxattr(path, each, follow_symlinks=False)
        if value != expected[each]:
            yield f"{name!r}: xattr {each!r} is {value[:40]!r}, should be {expected[each][:40]!r}"


def read_whole(descriptor: int) -> bytes:
    """Everything from a descriptor's place to the end."""
    parts = []
    while part := os.read(descriptor, _PIECE):
        parts.append(part)
    return b"".join(parts)
