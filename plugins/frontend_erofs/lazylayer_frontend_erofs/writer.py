"""Write the metadata of an EROFS image from a tree.

The image holds the metadata, then the data of each file, from a block of its own on and filled up
with zeros to whole blocks. Only the metadata are written here: nothing is known of the data but
their sizes. So a file is one run of blocks, and its inode says all that is to be said of it.

    0      1024        1152          …                    …              …
    | free | superblock | inodes, small directories | directory blocks | data of files

Two passes over the directories: one gives every inode its place, the other writes them. The inodes
of a directory's entries lie together, since they are looked at together. Inodes are all of the
extended kind, 64 bytes, which holds nanoseconds and large owners. The same tree gives the same bytes.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Iterator

import msgspec

from lazylayer.api.tree import Entry, Tree
from lazylayer.errors import MountError
from lazylayer_frontend_erofs.format import (
    BLOCK,
    BLOCK_BITS,
    DIRENT,
    EXTENDED,
    FILE_TYPES,
    FLAT_INLINE,
    FLAT_PLAIN,
    INODE,
    INODE_SIZE,
    MAX_BLOCKS,
    NO_BLOCK,
    SLOT,
    SUPERBLOCK_OFFSET,
    encode_device,
    superblock,
    write_checksum,
)
from lazylayer_frontend_erofs.xattrs import encode_xattrs

__all__ = ["WRITER_VERSION", "Metadata", "file_entries", "write_metadata"]

WRITER_VERSION = 2
"""Raised when the same tree gives other metadata than before."""

_FIRST_INODE = 1152
_S_IFMT = 0o170000
_S_IFREG = 0o100000
_S_IFDIR = 0o040000
_S_IFLNK = 0o120000
_PLAIN_FORMAT = EXTENDED | FLAT_PLAIN << 1
_INLINE_FORMAT = EXTENDED | FLAT_INLINE << 1
_NANOSECONDS = 1_000_000_000


class Metadata(msgspec.Struct, frozen=True):
    """The metadata of an image. The data of the files that `file_entries` lists follow, in that order."""

    image: bytes
    """Whole blocks."""
    size: int
    """Bytes of the whole image, data and all."""


def file_entries(tree: Tree) -> Iterator[Entry]:
    """Return the files of a tree that have data, each once, in the order in which their data lie in the image."""
    seen: set[int] = set()
    for directory in _directories(tree.root):
        for child in (directory.children or {}).values():
            if child.size and child.mode & _S_IFMT == _S_IFREG:
                if child.nlink > 1:
                    if child.ino in seen:
                        continue
                    seen.add(child.ino)
                yield child


def write_metadata(tree: Tree) -> Metadata:
    """Return the metadata of `tree`. Raises MountError for what EROFS cannot hold."""
    try:
        return _Writer(tree).write()
    except struct.error as error:
        raise MountError(f"the tree has an owner, size or time that EROFS cannot hold: {error}") from error


def _directories(root: Entry) -> Iterator[Entry]:
    stack = [root]
    while stack:
        directory = stack.pop()
        yield directory
        below = [child for child in (directory.children or {}).values() if child.children is not None]
        below.reverse()
        stack += below


class _Writer:
    """Places and writes the inodes of one tree."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._directories = list(_directories(tree.root))
        self._nids = array("Q", bytes(8 * (tree.inodes + 1)))
        self._order: list[Entry] = []
        self._xattrs: dict[int, bytes] = {}
        self._inline: set[int] = set()
        # For directories and symlinks that are not inline: the place of their data, from the end of the inodes.
        self._blocks: dict[int, int] = {}
        self._directory_sizes: dict[int, int] = {}
        self._parents: dict[int, Entry] = {tree.root.ino: tree.root}

    def write(self) -> Metadata:
        inodes_end = self._place_inodes()
        first_block = (inodes_end + BLOCK - 1) >> BLOCK_BITS
        block_count = self._place_blocks()
        metadata_blocks = first_block + block_count
        inodes, data_blocks = self._write_inodes(first_block, metadata_blocks)
        parts = [bytes(_FIRST_INODE), *inodes, bytes((first_block << BLOCK_BITS) - inodes_end)]
        parts += self._write_blocks()
        image = bytearray(b"".join(parts))
        total = metadata_blocks + data_blocks
        root = self._nids[self._tree.root.ino]
        identity = hashlib.sha256(image).digest()[:16]
        start = superblock(root=root, inodes=self._tree.inodes, blocks=total, uuid=identity)
        image[SUPERBLOCK_OFFSET : SUPERBLOCK_OFFSET + len(start)] = start
        write_checksum(image)
        return Metadata(bytes(image), total << BLOCK_BITS)

    # --- where everything lies -------------------------------------------------------------------

    def _place_inodes(self) -> int:
        """Give every inode its nid; return where the last one ends."""
        nids, order, place_other = self._nids, self._order, self._place_other
        at = place_other(self._tree.root, _FIRST_INODE)
        for directory in self._directories:
            assert directory.children is not None
            for child in directory.children.values():
                if child.nlink > 1 and nids[child.ino] and child.children is None:
                    continue
                if child.mode & _S_IFMT == _S_IFREG and child.xattrs is None:
                    nids[child.ino] = at >> 5
                    order.append(child)
                    at += INODE_SIZE
                else:
                    if child.children is not None:
                        self._parents[child.ino] = directory
                    at = place_other(child, at)
        return at

    def _place_other(self, entry: Entry, at: int) -> int:
        """Place an inode that has more than the usual; return where the next may start."""
        body = encode_xattrs(entry) if entry.xattrs or entry.opaque else b""
        if body:
            self._xattrs[entry.ino] = body
        head = INODE_SIZE + len(body)
        tail = 0
        if entry.children is not None:
            size = _directory_size(entry.children)
            self._directory_sizes[entry.ino] = size
            tail = size if head + size <= BLOCK else 0
        elif entry.mode & _S_IFMT == _S_IFLNK:
            tail = len(entry.target) if head + len(entry.target) <= BLOCK else 0
        if tail:
            self._inline.add(entry.ino)
            # What is inline must not go over the end of a block.
            if (at + head) >> BLOCK_BITS != (at + head + tail - 1) >> BLOCK_BITS:
                at = (at + BLOCK - 1) & -BLOCK
        self._nids[entry.ino] = at >> 5
        self._order.append(entry)
        return (at + head + tail + SLOT - 1) & -SLOT

    def _place_blocks(self) -> int:
        """Give directories and symlinks that are not inline their blocks; return how many there are."""
        block = 0
        for entry in self._order:
            if entry.ino in self._inline or entry.mode & _S_IFMT not in (_S_IFDIR, _S_IFLNK):
                continue
            size = self._directory_sizes[entry.ino] if entry.children is not None else len(entry.target)
            if size:
                self._blocks[entry.ino] = block
                block += (size + BLOCK - 1) >> BLOCK_BITS
        return block

    # --- writing ---------------------------------------------------------------------------------

    def _write_inodes(self, first_block: int, data_block: int) -> tuple[list[bytes], int]:
        """Return the inodes with all that follows each, and the number of blocks of files' data."""
        nids, xattrs, pack = self._nids, self._xattrs, INODE.pack
        parts: list[bytes] = []
        starts = self._data_starts(data_block)
        at = _FIRST_INODE
        for entry in self._order:
            ino = entry.ino
            nid = nids[ino]
            start = nid << 5
            if start != at:
                parts.append(bytes(start - at))
            seconds, nanoseconds = divmod(entry.mtime, _NANOSECONDS)
            if ino not in xattrs and entry.mode & _S_IFMT == _S_IFREG:
                parts.append(
                    pack(_PLAIN_FORMAT, 0, entry.mode, 0, entry.size, starts.get(ino, NO_BLOCK), ino & 0xFFFFFFFF,
                         entry.uid, entry.gid, seconds, nanoseconds, entry.nlink)
                )  # fmt: skip
                at = start + INODE_SIZE
                continue
            body = xattrs.get(ino, b"")
            layout, size, where, tail = self._describe(entry, first_block, starts)
            inode = pack(layout, (len(body) - 12) // 4 + 1 if body else 0, entry.mode, 0, size, where,
                         ino & 0xFFFFFFFF, entry.uid, entry.gid, seconds, nanoseconds, entry.nlink)  # fmt: skip
            parts += (inode, body, tail)
            at = start + INODE_SIZE + len(body) + len(tail)
        end = (at + SLOT - 1) & -SLOT
        parts.append(bytes(end - at))
        return parts, self._data_blocks

    def _data_starts(self, data_block: int) -> dict[int, int]:
        """Return the first block of each file with data, by its inode number."""
        starts: dict[int, int] = {}
        first = data_block
        for entry in file_entries(self._tree):
            starts[entry.ino] = data_block
            data_block += (entry.size + BLOCK - 1) >> BLOCK_BITS
        if data_block > MAX_BLOCKS:
            raise MountError(f"{data_block} blocks of data are more than the {MAX_BLOCKS} that EROFS can address")
        self._data_blocks = data_block - first
        return starts

    def _describe(self, entry: Entry, first_block: int, starts: dict[int, int]) -> tuple[int, int, int, bytes]:
        """Format, size, block or device, and inline data of an inode."""
        kind = entry.mode & _S_IFMT
        if kind == _S_IFREG:
            return _PLAIN_FORMAT, entry.size, starts.get(entry.ino, NO_BLOCK), b""
        if kind not in (_S_IFDIR, _S_IFLNK):
            device = encode_device(entry.rdev) if kind in (0o020000, 0o060000) else 0
            return _PLAIN_FORMAT, 0, device, b""
        if entry.ino in self._inline:
            tail = self._directory_blocks(entry) if entry.children is not None else entry.target
            return _INLINE_FORMAT, len(tail), NO_BLOCK, tail
        size = self._directory_sizes[entry.ino] if entry.children is not None else len(entry.target)
        block = self._blocks.get(entry.ino)
        return _PLAIN_FORMAT, size, NO_BLOCK if block is None else first_block + block, b""

    def _write_blocks(self) -> Iterator[bytes]:
        for entry in self._order:
            if entry.ino in self._blocks:
                data = self._directory_blocks(entry) if entry.children is not None else entry.target
                yield data
                yield bytes(-len(data) % BLOCK)

    def _directory_blocks(self, directory: Entry) -> bytes:
        """Return a directory's data: each block holds entries, then their names; the last one is not filled up."""
        assert directory.children is not None
        nids, types, pack = self._nids, FILE_TYPES, DIRENT.pack
        own = {b".": directory, b"..": self._parents[directory.ino], **directory.children}
        blocks: list[bytes] = []
        for names in _directory_names(directory.children):
            at = DIRENT.size * len(names)
            entries = []
            for name in names:
                entry = own[name]
                entries.append(pack(nids[entry.ino], at, types[entry.mode & _S_IFMT], 0))
                at += len(name)
            blocks += (b"".join(entries), b"".join(names), bytes(BLOCK - at))
        blocks.pop()
        return b"".join(blocks)


def _directory_names(children: dict[bytes, Entry]) -> Iterator[list[bytes]]:
    """Return the names of a directory, its own two included, sorted, as they are divided into blocks."""
    names = sorted([b".", b"..", *children])
    if sum(map(len, names)) + DIRENT.size * len(names) <= BLOCK:
        yield names
        return
    block: list[bytes] = []
    used = 0
    for name in names:
        need = DIRENT.size + len(name)
        if used + need > BLOCK:
            yield block
            block, used = [], 0
        block.append(name)
        used += need
    yield block


def _directory_size(children: dict[bytes, Entry]) -> int:
    """Bytes of a directory's data: whole blocks, and what is used of the last one."""
    size = sum(map(len, children)) + DIRENT.size * (len(children) + 2) + 3
    if size <= BLOCK:
        return size
    blocks = [sum(map(len, names)) + DIRENT.size * len(names) for names in _directory_names(children)]
    return BLOCK * (len(blocks) - 1) + blocks[-1]
