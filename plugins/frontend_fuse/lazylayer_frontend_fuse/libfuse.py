"""The part of libfuse 2 that is called, through fusepy's declarations of it.

fusepy is imported here and nowhere else, and this module only when something is mounted: importing
fusepy looks for the library and fails where there is none. fusepy's own loop, `fuse.FUSE`, is not
used: it forks unless told not to, takes over signals, answers a failing mount with a number, and
turns names that are not UTF-8 into errors. Its structures and prototypes are right, and used.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import fuse

__all__ = [
    "FileInfo",
    "Filler",
    "Stat",
    "StatLayout",
    "destroy",
    "new_operations",
    "new_session",
    "run_session",
]

FileInfo: Any = fuse.fuse_file_info
Stat: Any = fuse.c_stat

# The callback that collects a directory's entries is C code that returns at once: it is called
# with Python's lock held, which spares a release and a fight for it per entry.
Filler: Any = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_longlong)

_library: Any = fuse._libfuse
_library.fuse_kern_chan_new.restype = ctypes.c_void_p
_library.fuse_kern_chan_new.argtypes = [ctypes.c_int]
_library.fuse_chan_destroy.restype = None
_library.fuse_chan_destroy.argtypes = [ctypes.c_void_p]
_library.fuse_loop.argtypes = [ctypes.c_void_p]
_library.fuse_loop_mt.argtypes = [ctypes.c_void_p]
_library.fuse_destroy.restype = None
_library.fuse_destroy.argtypes = [ctypes.c_void_p]
_library.fuse_opt_free_args.argtypes = [ctypes.c_void_p]


def _load_fuse_new() -> Any:
    """libfuse's `fuse_new` as of version 2.6: a look-up without a version finds that of version 1."""
    find = ctypes.CDLL(None).dlvsym
    find.restype, find.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
    address = find(_library._handle, b"fuse_new", b"FUSE_2.6")
    if not address:
        raise OSError("the library that fusepy found is not libfuse 2.6 or newer")
    arguments = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    return ctypes.CFUNCTYPE(ctypes.c_void_p, *arguments)(address)


_fuse_new = _load_fuse_new()


class _Arguments(ctypes.Structure):
    _fields_ = (
        ("argc", ctypes.c_int),
        ("argv", ctypes.POINTER(ctypes.c_char_p)),
        ("allocated", ctypes.c_int),
    )


class StatLayout:
    """Packs `struct stat` of this machine in one go; assigning its fields takes five times as long."""

    _FIELDS = (
        "st_ino", "st_nlink", "st_mode", "st_uid", "st_gid", "st_rdev", "st_size", "st_blksize", "st_blocks",
    )  # fmt: skip
    _TIMES = ("st_atimespec", "st_mtimespec", "st_ctimespec")

    def __init__(self) -> None:
        self.size = ctypes.sizeof(Stat)
        codes = {1: "B", 2: "H", 4: "I", 8: "q"}
        places: list[tuple[int, str, int]] = []
        for index, name in enumerate(self._FIELDS):
            field = getattr(Stat, name)
            places.append((field.offset, codes[field.size].upper(), index))
        for index, name in enumerate(self._TIMES):
            field, half = getattr(Stat, name), ctypes.sizeof(ctypes.c_long)
            places.append((field.offset, codes[half].lower(), len(self._FIELDS) + 2 * index))
            places.append((field.offset + half, codes[half].lower(), len(self._FIELDS) + 2 * index + 1))
        places.sort()
        self._order = itemgetter(*[index for _, _, index in places])
        format_, at = "=", 0
        for offset, code, _ in places:
            format_ += f"{offset - at}x{code}"
            at = offset + struct.calcsize("=" + code)
        self._struct = struct.Struct(f"{format_}{self.size - at}x")

    def pack(self, *values: int) -> bytes:
        """Return the structure from ino, nlink, mode, uid, gid, rdev, size, blksize, blocks and three pairs of times.

        Times are seconds and nanoseconds of access, modification and change.
        """
        return self._struct.pack(*self._order(values))


def new_operations(callbacks: dict[str, Any]) -> Any:
    """Return a `struct fuse_operations` that calls `callbacks`; keep it as long as the session lives."""
    operations = fuse.fuse_operations()
    prototypes = dict(field[:2] for field in fuse.fuse_operations._fields_)
    for name, callback in callbacks.items():
        setattr(operations, name, prototypes[name](callback))
    return operations


def new_session(descriptor: int, options: Sequence[str], operations: Any) -> int:
    """Return a session on an open /dev/fuse, which it owns from now on; 0 if libfuse refuses the options.

    Then the descriptor is closed.
    """
    argv = (ctypes.c_char_p * 3)(b"lazylayer", b"-o", ",".join(options).encode())
    arguments = _Arguments(3, argv, 0)
    channel = _library.fuse_kern_chan_new(descriptor)
    if not channel:
        return 0
    session: int | None = _fuse_new(
        channel, ctypes.byref(arguments), ctypes.byref(operations), ctypes.sizeof(operations), None
    )
    _library.fuse_opt_free_args(ctypes.byref(arguments))
    if not session:
        _library.fuse_chan_destroy(channel)
    return session or 0


def run_session(session: int, *, threads: bool) -> None:
    """Serve until the mount is gone."""
    if threads:
        _library.fuse_loop_mt(session)
    else:
        _library.fuse_loop(session)


def destroy(session: int) -> None:
    """Free the session and close its /dev/fuse."""
    _library.fuse_destroy(session)
