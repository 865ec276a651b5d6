"""A tree as answers to FUSE's requests.

Paths and names are bytes from end to end. A path is looked up as a directory, remembered, and a name
in it: two dictionary reads for nearly every request. Nothing here changes after the mount but those
memories, each a dictionary whose single reads and writes Python makes atomic: there is no lock.

No exception leaves a callback: libfuse has no use for one. A `LazylayerError`, which was reported when it was
raised, is EIO; anything else is logged, and is EIO too.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from loguru import logger

from lazylayer.api.mounting import MountableTree, VirtualFile
from lazylayer.api.tree import OPAQUE_XATTRS, Entry
from lazylayer.errors import LazylayerError
from lazylayer_frontend_fuse.libfuse import Filler, Stat, StatLayout

__all__ = ["Operations"]

_BLOCK_SIZE = 4096
_STATFS_BLOCK_SIZE = 512
_VIRTUAL = 1 << 48
"""Inode numbers from here on are those of virtual entries, in the order of their names."""
_OPENED_VIRTUAL_FILES = 256
_NAME_MAX = 255
_SECOND = 1_000_000_000

_Answer = Callable[..., int]


class Operations:
    """The callbacks of one mount. Called from any thread of libfuse, or several at once."""

    def __init__(self, tree: MountableTree, on_ready: Callable[[], None], prepare: Callable[[], None] | None) -> None:
        self._tree = tree
        self._read_tree = tree.read
        self._root = tree.tree.root
        self._on_ready = on_ready
        self._prepare = prepare
        self._pack = StatLayout()
        self._started = divmod(time.time_ns(), _SECOND)
        self._virtual_files: dict[int, VirtualFile] = {}
        self._opened: dict[int, Entry] = {}
        self._contents: OrderedDict[int, bytes] = OrderedDict()
        self._handles = itertools.count(_VIRTUAL)
        # The root goes by the empty name in the directory of the empty path: `/` splits into these.
        self._directories: dict[bytes, dict[bytes, Entry]] = {
            b"": {**self._virtual_directories(), **(self._root.children or {}), b"": self._root}
        }
        self._totals: tuple[int, int] | None = None

    def callbacks(self) -> dict[str, _Answer]:
        """Return each callback by its name in `struct fuse_operations`, guarded. What is left out, libfuse answers."""
        names = ("init", "getattr", "readlink", "readdir", "open", "read", "statfs", "getxattr", "listxattr")
        return {name: self._guard(getattr(self, f"_{name}")) for name in names}

    def _guard(self, operation: _Answer) -> _Answer:
        prepare, name = self._prepare, operation.__name__[1:]

        def answer(*arguments: Any) -> int:
            try:
                if prepare is not None:
                    prepare()
                return operation(*arguments)
            except LazylayerError:
                return -errno.EIO
            except BaseException as error:  # noqa: BLE001 - libfuse would go on with a random answer
                _log_failure(name, error)
                return -errno.EIO

        return answer

    # --- where a path leads ------------------------------------------------------------------------

    def _find(self, path: bytes) -> Entry | None:
        head, _, name = path.rpartition(b"/")
        children = self._directories.get(head)
        if children is None:
            children = self._enter(head)
            if children is None:
                return None
        return children.get(name)

    def _enter(self, path: bytes) -> dict[bytes, Entry] | None:
        directory = self._find(path)
        if directory is None or directory.children is None:
            return None
        self._directories[path] = directory.children
        return directory.children

    def _virtual_directories(self) -> dict[bytes, Entry]:
        numbers = itertools.count(_VIRTUAL)
        directories = {}
        for name, virtual in sorted(self._tree.virtual.items()):
            directory = Entry(mode=stat.S_IFDIR | virtual.mode, ino=next(numbers), nlink=2, children={})
            assert directory.children is not None
            for file_name, file in sorted(virtual.files.items()):
                entry = Entry(mode=stat.S_IFREG | file.mode, ino=next(numbers))
                directory.children[file_name] = entry
                self._virtual_files[entry.ino] = file
            directories[name] = directory
        return directories

    # --- callbacks, as fuse.h describes them ---------------------------------------------------------

    def _init(self, _connection: Any) -> int:
        self._on_ready()
        return 0

    def _getattr(self, path: bytes, buffer: Any) -> int:
        entry = self._find(path)
        if entry is None:
            return -errno.ENAMETOOLONG if len(path) - path.rfind(b"/") > _NAME_MAX + 1 else -errno.ENOENT
        ctypes.memmove(buffer, self._status(entry), self._pack.size)
        return 0

    def _status(self, entry: Entry) -> bytes:
        ino, size = entry.ino, entry.size
        if ino < _VIRTUAL:
            seconds, nanoseconds = divmod(entry.mtime, _SECOND)
        else:
            seconds, nanoseconds = self._started
            if ino in self._virtual_files:
                size = len(self._virtual_files[ino].content())
        return self._pack.pack(
            ino, entry.nlink, entry.mode, entry.uid, entry.gid, entry.rdev, size, _BLOCK_SIZE, (size + 511) >> 9,
            seconds, nanoseconds, seconds, nanoseconds, seconds, nanoseconds,
        )  # fmt: skip

    def _readlink(self, path: bytes, buffer: Any, size: int) -> int:
        entry = self._find(path)
        if entry is None:
            return -errno.ENOENT
        target = entry.target[: size - 1] + b"\0"
        ctypes.memmove(buffer, target, len(target))
        return 0

    def _readdir(self, path: bytes, buffer: Any, filler: Any, _offset: int, _info: Any) -> int:
        directory = self._find(path)
        parent = self._find(path.rpartition(b"/")[0] or b"/")
        if directory is None or parent is None or directory.children is None:
            return -errno.ENOENT
        fill = Filler(ctypes.cast(filler, ctypes.c_void_p).value)
        status = Stat()
        reference = ctypes.byref(status)
        own: Iterable[tuple[bytes, Entry]] = ((b".", directory), (b"..", parent))
        for name, entry in itertools.chain(own, directory.children.items()):
            status.st_ino = entry.ino
            status.st_mode = entry.mode
            if fill(buffer, name, reference, 0):
                return -errno.ENOMEM
        return 0

    def _open(self, path: bytes, info: Any) -> int:
        entry = self._find(path)
        if entry is None:
            return -errno.ENOENT
        opened = info.contents
        virtual = self._virtual_files.get(entry.ino)
        if virtual is None:
            # Kept after the close: a tree has only so many files, and a close then costs no call.
            self._opened[entry.ino] = entry
            opened.fh = entry.ino
            return 0
        # Neither the kernel's size nor its page cache may stand between a reader and the new content.
        opened.direct_io = 1
        opened.keep_cache = 0
        opened.fh = handle = next(self._handles)
        self._contents[handle] = virtual.content()
        if len(self._contents) > _OPENED_VIRTUAL_FILES:
            self._contents.popitem(last=False)
        return 0

    def _read(self, path: bytes, buffer: Any, size: int, offset: int, info: Any) -> int:
        handle = info.contents.fh
        entry = self._opened.get(handle)
        if entry is None:
            data = self._virtual_content(path, handle)[offset : offset + size]
        else:
            data = self._read_tree(entry, offset, size)
            # The kernel would take less than all for the end of the file, and fill up with zeros.
            if len(data) != max(0, min(size, entry.size - offset)):
                raise ValueError(f"{len(data)} bytes of {path!r} came where {size} were asked for at {offset}")
        length = len(data)
        ctypes.memmove(buffer, data, length)
        return length

    def _virtual_content(self, path: bytes, handle: int) -> bytes:
        content = self._contents.get(handle)
        if content is None:
            entry = self._find(path)
            content = self._virtual_files[entry.ino].content() if entry is not None else b""
        return content

    def _statfs(self, _path: bytes, buffer: Any) -> int:
        if self._totals is None:
            sizes = {entry.ino: entry.size for _, entry in self._tree.tree.walk() if entry.is_file}
            blocks = sum([-(-size // _STATFS_BLOCK_SIZE) for size in sizes.values()])
            self._totals = blocks, self._tree.tree.inodes
        status = buffer.contents
        status.f_bsize = status.f_frsize = _STATFS_BLOCK_SIZE
        status.f_blocks, status.f_files = self._totals
        status.f_namemax = _NAME_MAX
        return 0

    def _getxattr(self, path: bytes, name: bytes, buffer: Any, size: int) -> int:
        entry = self._find(path)
        if entry is None:
            return -errno.ENOENT
        if entry.opaque and name in OPAQUE_XATTRS:
            return _give(b"y", buffer, size)
        value = entry.xattrs.get(name) if entry.xattrs else None
        return -errno.ENODATA if value is None else _give(value, buffer, size)

    def _listxattr(self, path: bytes, buffer: Any, size: int) -> int:
        entry = self._find(path)
        if entry is None:
            return -errno.ENOENT
        names = list(OPAQUE_XATTRS) if entry.opaque else []
        names += [name for name in entry.xattrs or () if name not in names]
        return _give(b"".join([name + b"\0" for name in names]), buffer, size)


def _give(value: bytes, buffer: Any, size: int) -> int:
    """Answer a request for a value: with `size` 0 only its length is wanted."""
    if size == 0:
        return len(value)
    if len(value) > size:
        return -errno.ERANGE
    ctypes.memmove(buffer, value, len(value))
    return len(value)


def _log_failure(operation: str, error: BaseException) -> None:
    try:
        logger.error("FUSE {operation}: {kind}: {error}", operation=operation, kind=type(error).__name__, error=error)
    except Exception:  # noqa: BLE001 - a log that fails must not become a random answer either
        os.write(2, b"lazylayer: a FUSE request failed, and so did logging it\n")
