"""The parts of the EROFS on-disk format that are written here; see fs/erofs/erofs_fs.h in Linux.

Everything is little-endian. Blocks are of 4096 bytes: every kernel with EROFS takes them, and so do
the tools. An inode's number (nid) is its place in the image divided by 32, since the metadata start
at block 0.
"""

from __future__ import annotations

import struct

__all__ = [
    "BLOCK",
    "BLOCK_BITS",
    "DIRENT",
    "FILE_TYPES",
    "FLAT_INLINE",
    "FLAT_PLAIN",
    "INODE",
    "INODE_SIZE",
    "MAX_BLOCKS",
    "MAX_XATTR_NAME",
    "MAX_XATTR_VALUE",
    "NO_BLOCK",
    "SLOT",
    "SUPERBLOCK_OFFSET",
    "XATTR_PREFIXES",
    "XATTR_WHOLE_NAMES",
    "crc32c",
    "encode_device",
    "superblock",
]

BLOCK_BITS = 12
BLOCK = 1 << BLOCK_BITS
SLOT = 32
"""Inodes start at multiples of this many bytes."""

SUPERBLOCK_OFFSET = 1024
_MAGIC = 0xE0F5E1E2
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQBB2sIQQ")
_COMPAT_CHECKSUM = 1
_COMPAT_MTIME = 2
_CHECKSUM_OFFSET = SUPERBLOCK_OFFSET + 4

FLAT_PLAIN = 0
"""Data layout: all of the data in blocks of their own."""
FLAT_INLINE = 2
"""Data layout: what does not fill a block lies behind the inode and its attributes."""
NO_BLOCK = 0xFFFFFFFF
MAX_BLOCKS = 0xFFFFFFFF

INODE = struct.Struct("<HHHHQIIIIqII16x")
"""An extended inode: format, xattr count, mode, 0, size, block or device, ino, uid, gid, mtime, ns, nlink."""
INODE_SIZE = INODE.size
EXTENDED = 1

DIRENT = struct.Struct("<QHBB")
"""A directory entry: nid, place of the name in its block, type, 0."""

FILE_TYPES = {0o100000: 1, 0o040000: 2, 0o020000: 3, 0o060000: 4, 0o010000: 5, 0o140000: 6, 0o120000: 7}
"""The type in a directory entry, by the type bits of a mode."""

XATTR_PREFIXES = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
XATTR_WHOLE_NAMES = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}
MAX_XATTR_NAME = 255
MAX_XATTR_VALUE = 65535


def superblock(*, root: int, inodes: int, blocks: int, uuid: bytes) -> bytes:
    """Return the superblock without its checksum: see `crc32c`."""
    return _SUPERBLOCK.pack(
        _MAGIC, 0, _COMPAT_CHECKSUM | _COMPAT_MTIME, BLOCK_BITS, 0, root, inodes, 0, 0, blocks, 0, 0,
        uuid, b"", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b"", 0, 0, 0,
    )  # fmt: skip


def write_checksum(image: bytearray) -> None:
    """Put the checksum into the superblock; it covers the rest of the first block, so it comes last."""
    image[_CHECKSUM_OFFSET : _CHECKSUM_OFFSET + 4] = bytes(4)
    checksum = crc32c(bytes(image[SUPERBLOCK_OFFSET:BLOCK]))
    image[_CHECKSUM_OFFSET : _CHECKSUM_OFFSET + 4] = checksum.to_bytes(4, "little")


def _crc32c_table() -> list[int]:
    table = []
    for number in range(256):
        value = number
        for _ in range(8):
            value = (value >> 1) ^ 0x82F63B78 if value & 1 else value >> 1
        table.append(value)
    return table


def crc32c(data: bytes) -> int:
    """Return the kernel's crc32c: Castagnoli's polynomial, begun with ones, not inverted at the end."""
    table, value = _crc32c_table(), 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value


def encode_device(device: int) -> int:
    """Return the kernel's 32-bit form of a device number as `os.makedev` makes it."""
    major = (device >> 8) & 0xFFF | (device >> 32) & ~0xFFF
    minor = device & 0xFF | (device >> 12) & ~0xFF
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & 0xFFF00) << 12
