"""The FUSE kernel protocol, as far as a file system of one file needs it; see include/uapi/linux/fuse.h.

The mount's root is that file. So nothing is ever looked up, the file's number is always that of the
root, and a server needs no memory of what it answered before.
"""

from __future__ import annotations

import os
import struct
from enum import IntEnum, IntFlag

__all__ = [
    "HEADER",
    "NOTIFY_RESEND",
    "NOTIFY_STORE",
    "READ",
    "REPLY",
    "REQUEST_BYTES",
    "Operation",
    "attributes_reply",
    "init_reply",
    "open_reply",
    "statfs_reply",
    "store_notice",
]

REQUEST_BYTES = 16 * 1024
"""A buffer that every request fits in, since none of them writes; the kernel wants 8 KiB at least."""

HEADER = struct.Struct("<IIQQIIIHH")
"""A request: length, operation, unique, node, uid, gid, pid, length of extensions, 0."""
READ = struct.Struct("<QQIIQII")
"""A read: handle, offset, size, flags, lock owner, open flags, 0."""
REPLY = struct.Struct("<IiQ")
"""An answer: length, 0 or an errno below 0, unique. A notice has its code and unique 0."""
NOTIFY_STORE = 4
NOTIFY_RESEND = 7

_INIT_IN = struct.Struct("<IIII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHII24x")
_ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
_ATTRIBUTES_HEAD = struct.Struct("<QII")
_OPEN = struct.Struct("<QII")
_STATFS = struct.Struct("<QQQQQIIII24x")
_STORE = struct.Struct("<QQII")

_MAJOR, _MINOR = 7, 45
_ROOT = 1
_FOR_EVER = 1 << 31
_BLOCK = 4096


class Operation(IntEnum):
    """The operations that the kernel may ask of a file that is only read."""

    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    FLUSH = 25
    INIT = 26
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42


class _Can(IntFlag):
    ASYNC_READ = 1 << 0
    ASYNC_DIO = 1 << 15
    MAX_PAGES = 1 << 22
    INIT_EXT = 1 << 30
    HAS_RESEND = 1 << 39


class _Opened(IntFlag):
    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1


_WANTED = _Can.ASYNC_READ | _Can.ASYNC_DIO | _Can.MAX_PAGES | _Can.INIT_EXT | _Can.HAS_RESEND


def init_reply(request: bytes, *, max_read: int, max_background: int) -> bytes:
    """Return the answer to INIT: what of the kernel's abilities is used, and how large reads may be."""
    body = request[HEADER.size :]
    major, minor, max_readahead, flags = _INIT_IN.unpack_from(body)
    if major != _MAJOR:
        raise ValueError(f"the kernel speaks version {major} of the FUSE protocol, not {_MAJOR}")
    if flags & _Can.INIT_EXT and len(body) >= _INIT_IN.size + 4:
        flags |= int.from_bytes(body[_INIT_IN.size : _INIT_IN.size + 4], "little") << 32
    flags &= _WANTED
    return _INIT_OUT.pack(
        _MAJOR, min(minor, _MINOR), min(max_readahead, max_read), flags & 0xFFFFFFFF,
        max_background, max_background * 3 // 4, _BLOCK, 1, max_read // _BLOCK, 0, flags >> 32, 0,
    )  # fmt: skip


def attributes_reply(size: int) -> bytes:
    """Return the answer to GETATTR: a file of `size` bytes that never changes, for its owner to read."""
    owner = os.geteuid(), os.getegid()
    attributes = _ATTRIBUTES.pack(
        _ROOT, size, (size + 511) >> 9, 0, 0, 0, 0, 0, 0, 0o100400, 1, *owner, 0, _BLOCK, 0
    )  # fmt: skip
    return _ATTRIBUTES_HEAD.pack(_FOR_EVER, 0, 0) + attributes


def open_reply(*, direct: bool) -> bytes:
    """Return the answer to OPEN: the page cache, which holds metadata, stays valid."""
    return _OPEN.pack(0, _Opened.KEEP_CACHE | (_Opened.DIRECT_IO if direct else 0), 0)


def statfs_reply(size: int) -> bytes:
    """Return the answer to STATFS."""
    return _STATFS.pack((size + _BLOCK - 1) // _BLOCK, 0, 0, 1, 0, _BLOCK, 255, _BLOCK, 0)


def store_notice(offset: int, data: bytes | memoryview) -> tuple[bytes, bytes, bytes | memoryview]:
    """Return a notice that puts `data` into the kernel's page cache of the file."""
    length = REPLY.size + _STORE.size + len(data)
    return REPLY.pack(length, NOTIFY_STORE, 0), _STORE.pack(_ROOT, offset, len(data), 0), data
