"""An independent reader of EROFS images, written from the format's description: the oracle of the writer's tests.

It shares no code with the writer and is strict: whatever the kernel might forgive raises ValueError.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}
_TYPES = {
    1: stat.S_IFREG,
    2: stat.S_IFDIR,
    3: stat.S_IFCHR,
    4: stat.S_IFBLK,
    5: stat.S_IFIFO,
    6: stat.S_IFSOCK,
    7: stat.S_IFLNK,
}


@dataclass(frozen=True)
class Inode:
    """An inode, and its data unless it is a regular file, whose data are only placed."""

    nid: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    nlink: int
    rdev: int
    first_block: int
    data: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]


def _check(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


class ErofsReader:
    """Reads an uncompressed image with 4 KiB blocks and one device."""

    def __init__(self, image: bytes) -> None:
        self.image = image
        _check(len(image) % 4096 == 0, "the image is not of whole blocks")
        _check(image[:1024] == bytes(1024), "something lies in front of the superblock")
        block = image[1024:4096]
        magic, checksum, compat = struct.unpack_from("<III", block)
        _check(magic == 0xE0F5E1E2, "wrong magic")
        _check(checksum == _crc32c(block[:4] + bytes(4) + block[8:]), "wrong checksum")
        _check(compat == 3, "unexpected compatible features")
        bits, slots, root = block[12], block[13], struct.unpack_from("<H", block, 14)[0]
        _check((bits, slots) == (12, 0), "unexpected block size or superblock extensions")
        self.inodes, self.epoch = struct.unpack_from("<QQ", block, 16)
        self.blocks, self.meta_block, self.xattr_block = struct.unpack_from("<III", block, 36)
        self.uuid = block[48:64]
        incompat, devices = struct.unpack_from("<I", block, 80)[0], struct.unpack_from("<H", block, 86)[0]
        _check((incompat, devices, self.meta_block) == (0, 0, 0), "unexpected features")
        self.root = self.inode(root)

    def inode(self, nid: int) -> Inode:
        """Return the inode number `nid`."""
        at = nid * 32
        layout, xattr_count, mode, must_be_zero, size, where, _, uid, gid, seconds, nanoseconds, nlink = (
            struct.unpack_from("<HHHHQIIIIqII", self.image, at)
        )
        _check(layout & 1 == 1 and layout >> 1 in (0, 2) and must_be_zero == 0, f"inode {nid}: layout {layout}")
        _check(nanoseconds < 10**9, f"inode {nid}: nanoseconds {nanoseconds}")
        kind = stat.S_IFMT(mode)
        end = at + 64
        xattrs: tuple[tuple[bytes, bytes], ...] = ()
        if xattr_count:
            length = 12 + 4 * (xattr_count - 1)
            _check(length > 12, f"inode {nid}: attributes without any")
            xattrs = tuple(self._xattrs(self.image[end : end + length]))
            end += length
        data, first_block, rdev = b"", 0xFFFFFFFF, 0
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            _check(size == 0, f"inode {nid}: a device with a size")
            rdev = os.makedev((where >> 8) & 0xFFF, (where & 0xFF) | ((where >> 12) & 0xFFF00))
        elif kind in (stat.S_IFIFO, stat.S_IFSOCK):
            _check((size, where) == (0, 0), f"inode {nid}: a fifo or socket with data")
        elif kind == stat.S_IFREG:
            _check(layout >> 1 == 0, f"inode {nid}: a file with inline data")
            first_block = where
            _check((where == 0xFFFFFFFF) == (size == 0), f"inode {nid}: a file of {size} bytes at block {where}")
        else:
            data = self._data(nid, layout >> 1, end, size, where)
        mtime = seconds * 10**9 + nanoseconds
        return Inode(nid, mode, uid, gid, size, mtime, nlink, rdev, first_block, data, xattrs)

    def _data(self, nid: int, layout: int, end: int, size: int, where: int) -> bytes:
        whole = size // 4096 * 4096 if layout == 2 else size
        data = b""
        if whole:
            _check(where != 0xFFFFFFFF, f"inode {nid}: no block")
            data = self.image[where * 4096 : where * 4096 + whole]
            _check(len(data) == whole, f"inode {nid}: data outside of the metadata")
        else:
            _check(where == 0xFFFFFFFF, f"inode {nid}: a block for nothing")
        tail = size - whole
        if tail:
            _check(end // 4096 == (end + tail - 1) // 4096, f"inode {nid}: inline data go over a block's end")
            data += self.image[end : end + tail]
        return data

    def _xattrs(self, body: bytes) -> Iterator[tuple[bytes, bytes]]:
        _check(body[:12] == bytes(12), "shared attributes or a filter")
        at = 12
        while at < len(body):
            name_length, index, value_length = struct.unpack_from("<BBH", body, at)
            at += 4
            name = body[at : at + name_length]
            value = body[at + name_length : at + name_length + value_length]
            _check((len(name), len(value)) == (name_length, value_length), "an attribute goes over the end")
            _check(index not in (2, 3) or not name, "an ACL with a name")
            yield _PREFIXES[index] + name, value
            used = name_length + value_length
            at += used
            padding = body[at : at + -(4 + used) % 4]
            _check(not any(padding), "padding that is not zero")
            at += len(padding)

    def entries(self, directory: Inode) -> dict[bytes, tuple[int, int]]:
        """Return the nid and type bits by name of a directory, `.` and `..` included, in order."""
        found: dict[bytes, tuple[int, int]] = {}
        last = b""
        for start in range(0, len(directory.data), 4096):
            block = directory.data[start : start + 4096]
            count = struct.unpack_from("<H", block, 8)[0] // 12
            _check(count > 0, "a directory block without entries")
            raw = [struct.unpack_from("<QHBB", block, 12 * number) for number in range(count)]
            ends = [offset for _, offset, _, _ in raw[1:]] + [len(block)]
            _check(raw[0][1] == 12 * count, "the first name is not behind the entries")
            for (nid, offset, kind, zero), end in zip(raw, ends, strict=True):
                name = block[offset:end]
                if end == len(block):
                    name = name.split(b"\0", 1)[0]
                _check(0 < len(name) <= 255 and b"/" not in name and zero == 0, f"a bad name {name!r}")
                _check(name > last, f"{name!r} is not sorted behind {last!r}")
                last = name
                found[name] = (nid, _TYPES[kind])
        return found

    def walk(self) -> Iterator[tuple[bytes, Inode]]:
        """Yield every path with its inode, parents first; the root is `b""`."""
        stack = [(b"", self.root.nid, self.root.nid)]
        while stack:
            path, nid, parent = stack.pop()
            inode = self.inode(nid)
            yield path, inode
            if not stat.S_ISDIR(inode.mode):
                continue
            entries = self.entries(inode)
            _check(entries.pop(b".") == (nid, stat.S_IFDIR), f"{path!r}: wrong `.`")
            _check(entries.pop(b"..") == (parent, stat.S_IFDIR), f"{path!r}: wrong `..`")
            for name, (child, kind) in reversed(entries.items()):
                _check(stat.S_IFMT(self.inode(child).mode) == kind, f"{path!r}/{name!r}: listed with a wrong type")
                stack.append((path + b"/" + name if path else name, child, nid))
