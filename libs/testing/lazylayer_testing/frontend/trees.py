"""Trees for checking frontends: every oddity a layer may hold, with content made up as it is read."""

from __future__ import annotations

import os
import random
import stat
import struct
import threading
from collections.abc import Callable, Mapping

from lazylayer.api.mounting import VirtualDirectory
from lazylayer.api.tree import OPAQUE_XATTRS, Entry, Tree
from lazylayer_tarlayers.treebuilder import TreeBuilder

__all__ = ["CHUNK", "HUGE", "LARGE", "SampleTree", "access_tree", "odd_tree", "shown_xattrs"]

CHUNK = 64 * 1024
"""A size that sample files lie around, as the chunks of a real layer would."""
LARGE = 24 * 1024 * 1024 + 4321
"""Bytes of the file `sizes/large`."""
HUGE = 5 * 1024**3 + 17
"""Bytes of the file `sizes/huge`, more than 32 bits can say; too large to be read whole."""

_PAD = random.Random(20).randbytes(1_000_003)  # noqa: S311 - content of test files
_GATE_SECONDS = 60.0


class SampleTree:
    """A `MountableTree` whose files are read from memory, from `contents` or made up.

    Made-up content differs from file to file and repeats only after a million bytes, so that bytes
    from a wrong place are found out. `complete` may be set. `fail` is raised by reads while it is set;
    `short` lets reads answer with too few bytes; `gate` holds reads up while it is cleared.
    """

    def __init__(
        self,
        tree: Tree,
        contents: Mapping[int, bytes] | None = None,
        virtual: Mapping[bytes, VirtualDirectory] | None = None,
        source: str = "sample.example/tree",
        identity: str = "",
    ) -> None:
        self.tree = tree
        self.source = source
        self.identity = identity
        self._complete = False
        self._waiting: dict[object, Callable[[], None]] = {}
        self.virtual: Mapping[bytes, VirtualDirectory] = virtual or {}
        self.fail: Exception | None = None
        self.short = False
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        """Set while a read waits at the gate."""
        self._contents = contents or {}

    @property
    def complete(self) -> bool:
        """Return what was set, at first False. Setting it to True makes the callbacks of `when_complete`."""
        return self._complete

    @complete.setter
    def complete(self, complete: bool) -> None:
        self._complete = complete
        callbacks, self._waiting = (self._waiting, {}) if complete else ({}, self._waiting)
        for callback in callbacks.values():
            callback()

    def when_complete(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once `complete` is set; see `MountableTree.when_complete`."""
        token = object()
        self._waiting[token] = callback
        if self._complete:
            self.complete = True

        def withdraw() -> None:
            self._waiting.pop(token, None)

        return withdraw

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """See `MountableTree.read`."""
        if not self.gate.is_set():
            self.waiting.set()
            self.gate.wait(_GATE_SECONDS)
        if self.fail is not None:
            raise self.fail
        return self.content(entry, offset, size // 2 if self.short else size)

    def content(self, entry: Entry, offset: int, size: int) -> bytes:
        """Return the bytes that a read should give, whatever `fail`, `short` and `gate` say."""
        size = max(0, min(size, entry.size - offset))
        if entry.ino in self._contents:
            return self._contents[entry.ino][offset : offset + size]
        start = (entry.ino * 7919 + offset) % len(_PAD)
        part = _PAD[start : start + size]
        while len(part) < size:
            part += _PAD[: size - len(part)]
        return part


class _Builder:
    """Adds entries with distinct times, and keeps the content of those files that need a given one."""

    def __init__(self) -> None:
        self.builder = TreeBuilder()
        self.given: list[tuple[Entry, bytes]] = []
        self._mtime = 1_500_000_000_000_000_001

    def add(self, path: bytes, mode: int, **attributes: object) -> Entry:
        self._mtime += 1_000_000_007
        entry = Entry(mode=mode, mtime=self._mtime)
        if stat.S_ISDIR(mode):
            entry.children = {}
        for name, value in attributes.items():
            setattr(entry, name, value)
        self.builder.add(path, entry)
        return entry

    def directory(self, path: bytes, mode: int = 0o755, **attributes: object) -> Entry:
        return self.add(path, stat.S_IFDIR | mode, **attributes)

    def file(self, path: bytes, content: int | bytes = 0, mode: int = 0o644, **attributes: object) -> Entry:
        size = content if isinstance(content, int) else len(content)
        entry = self.add(path, stat.S_IFREG | mode, size=size, **attributes)
        if isinstance(content, bytes):
            self.given.append((entry, content))
        return entry

    def symlink(self, path: bytes, target: bytes, **attributes: object) -> Entry:
        return self.add(path, stat.S_IFLNK | 0o777, target=target, size=len(target), **attributes)

    def finish(self, virtual: Mapping[bytes, VirtualDirectory] | None = None) -> SampleTree:
        tree = self.builder.finish()
        return SampleTree(tree, {entry.ino: content for entry, content in self.given}, virtual)


def odd_tree(virtual: Mapping[bytes, VirtualDirectory] | None = None) -> SampleTree:
    """Make entries of every type, mode, owner, name, time, link and attribute; one layer has whiteouts."""
    build = _Builder()
    build.directory(b"", 0o751, uid=3, gid=4, xattrs={b"user.of-the-root": b"x"})
    _add_names(build)
    _add_modes(build)
    _add_nodes(build)
    _add_sizes(build)
    _add_links(build)
    _add_xattrs(build)
    _add_overlay_marks(build)
    _add_many(build)
    _add_deep(build)
    return build.finish(virtual)


def _add_names(build: _Builder) -> None:
    build.directory(b"names")
    odd = [b"\xff\xfe not utf-8", b"n" * 255, b"\xc3\xbc" * 127, b" ", b"...", b"-rf", b"a\nb", b"\x01", b"\\", b"a:b"]
    # These sort in front of `.` and between `.` and `..`, where a directory's own entries lie.
    odd += [b"!first", b"+", b"-", b".-", b".hidden", b"..more", b"\xff"]
    for name in odd:
        build.file(b"names/" + name, 5)
    build.directory(b"names/d\xff")
    build.file(b"names/d\xff/inner", 3)


def _add_modes(build: _Builder) -> None:
    build.directory(b"modes")
    for mode in (0, 0o400, 0o644, 0o755, 0o1777, 0o2755, 0o4755, 0o7777):
        build.file(b"modes/file-%o" % mode, 10, mode)
        build.directory(b"modes/directory-%o" % mode, mode)
    for number, (uid, gid) in enumerate([(0, 1), (1000, 100), (65535, 65536), (2**31, 2**31 - 1), (2**32 - 2, 1)]):
        build.file(b"modes/owner-%d" % number, 1, uid=uid, gid=gid)
    times = (0, 1, -1, -5_000_000_001, 2**31 * 10**9, 2**33 * 10**9 + 999_999_999, 1_000_000_000_123_456_789)
    for number, mtime in enumerate(times):
        build.file(b"modes/time-%d" % number, 2, mtime=mtime)


def _add_nodes(build: _Builder) -> None:
    build.directory(b"nodes")
    build.add(b"nodes/null", stat.S_IFCHR | 0o666, rdev=os.makedev(1, 3))
    build.add(b"nodes/character", stat.S_IFCHR | 0o600, rdev=os.makedev(4095, 70_000), uid=7)
    build.add(b"nodes/block", stat.S_IFBLK | 0o660, rdev=os.makedev(259, 70_000))
    build.add(b"nodes/fifo", stat.S_IFIFO | 0o644)
    build.add(b"nodes/socket", stat.S_IFSOCK | 0o755)


def _add_sizes(build: _Builder) -> None:
    build.directory(b"sizes")
    sizes = [0, 1, 511, 512, 4095, 4096, 4097, CHUNK - 1, CHUNK, CHUNK + 1, 131_072, 131_073, 1_000_000]
    for size in sizes:
        build.file(b"sizes/%d" % size, size)
    build.file(b"sizes/large", LARGE)
    build.file(b"sizes/huge", HUGE)


def _add_links(build: _Builder) -> None:
    build.directory(b"links")
    build.file(b"links/first", 70_000, uid=12)
    build.builder.link(b"links/second", b"links/first")
    build.builder.link(b"names/third", b"links/first")
    build.symlink(b"links/relative", b"first")
    build.symlink(b"links/absolute", b"/nowhere/at/all")
    build.symlink(b"links/up", b"../sizes/4096")
    build.symlink(b"links/loop", b"loop")
    build.symlink(b"links/loop-a", b"loop-b")
    build.symlink(b"links/loop-b", b"loop-a")
    build.symlink(b"links/not-utf-8", b"\xff/\xfe")
    for length in (1, 3900, 4094):
        build.symlink(b"links/of-%d" % length, b"t" * length)
    build.builder.link(b"links/symlink-again", b"links/relative")


def _add_xattrs(build: _Builder) -> None:
    acl = struct.pack(
        "<IHHIHHIHHIHHIHHI", 2, 1, 7, 2**32 - 1, 2, 6, 1000, 4, 5, 2**32 - 1, 16, 7, 2**32 - 1, 32, 4, 2**32 - 1
    )
    capability = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
    build.directory(b"xattrs", xattrs={b"user.directory": b"\0binary\xff", b"trusted.overlay.metacopy": b""})
    build.file(b"xattrs/many", 3, xattrs={b"user.%d" % number: b"v" * number for number in range(100)})
    build.file(b"xattrs/large", 3, xattrs={b"user.large": bytes(range(256)) * 12})
    build.file(b"xattrs/long-name", 3, xattrs={b"user." + b"n" * 250: b"long", b"user.not-utf-8\xff": b"x"})
    build.file(b"xattrs/capability", 3, 0o755, xattrs={b"security.capability": capability})
    build.file(b"xattrs/acl", 3, 0o674, xattrs={b"system.posix_acl_access": acl})
    build.symlink(b"xattrs/symlink", b"target", xattrs={b"trusted.of-symlink": b"y"})
    build.add(b"xattrs/fifo", stat.S_IFIFO | 0o600, xattrs={b"trusted.of-fifo": b"z"})
    build.file(b"xattrs/empty-file", 0, xattrs={b"user.empty": b"", b"security.selinux": b"a:b:c:s0\0"})


def _add_overlay_marks(build: _Builder) -> None:
    build.directory(b"overlay")
    build.file(b"overlay/.wh.hidden-below", 0)
    build.directory(b"overlay/opaque", xattrs={b"user.other": b"1"})
    build.file(b"overlay/opaque/.wh..wh..opq", 0)
    build.file(b"overlay/opaque/own", 8)
    build.directory(b"overlay/merged")
    build.file(b"overlay/merged/own", 8)


def _add_many(build: _Builder) -> None:
    build.directory(b"many")
    for number in range(5000):
        build.file(b"many/a-file-of-many-%05d" % number, number % 5)
    build.directory(b"directories")
    for number in range(300):
        build.directory(b"directories/%d" % number)


def _add_deep(build: _Builder) -> None:
    path = b"deep"
    build.directory(path)
    # 16 names of 250 bytes: the innermost path is longer than a system call takes in one.
    for number in range(16):
        path += b"/" + b"%02d" % number + b"d" * 248
        build.directory(path)
    build.file(path + b"/innermost", 100)
    path = b"deep"
    for number in range(300):
        path += b"/%d" % number
        build.directory(path)
    build.file(path + b"/innermost", 100)


def access_tree(program: bytes, virtual: Mapping[bytes, VirtualDirectory] | None = None) -> SampleTree:
    """Make files that some users may read; `program`, an executable, is there twice, once set-uid."""
    build = _Builder()
    build.directory(b"")
    build.file(b"for-all", b"for all", 0o644)
    build.file(b"for-root", b"for root", 0o600)
    build.file(b"for-owner", b"for owner", 0o400, uid=1234, gid=9)
    build.file(b"for-group", b"for group", 0o640, gid=4321)
    build.file(b"not-for-owner", b"not for owner", 0o044, uid=1234, gid=9)
    build.directory(b"closed", 0o700)
    build.file(b"closed/open", b"in closed", 0o644)
    build.directory(b"passable", 0o711)
    build.file(b"passable/open", b"in passable", 0o644)
    build.file(b"program", program, 0o755)
    build.file(b"set-uid", program, 0o4755)
    build.file(b"script", b"#!/bin/sh\necho a script runs\n", 0o755)
    build.add(b"null", stat.S_IFCHR | 0o666, rdev=os.makedev(1, 3))
    return build.finish(virtual)


def shown_xattrs(entry: Entry) -> dict[bytes, bytes]:
    """Return the xattrs of an entry in the order in which a frontend lists them."""
    marks = dict.fromkeys(OPAQUE_XATTRS, b"y") if entry.opaque else {}
    return {**marks, **(entry.xattrs or {}), **marks}
