"""The image as one file: metadata, then the data of each file of the tree."""

from __future__ import annotations

from array import array
from bisect import bisect_right

from lazylayer.errors import LayerError
from lazylayer.mounting import MountableTree
from lazylayer.tree import Entry
from lazylayer_frontend_erofs.format import BLOCK, SUPERBLOCK_OFFSET
from lazylayer_frontend_erofs.writer import Metadata, file_entries

__all__ = ["Image"]

_UUID = slice(SUPERBLOCK_OFFSET + 48, SUPERBLOCK_OFFSET + 64)


class Image:
    """Reads of the image. Safe to use from any thread; nothing changes after it was made."""

    def __init__(self, tree: MountableTree, metadata: Metadata) -> None:
        self.size = metadata.size
        self.metadata = memoryview(metadata.image)
        self.name = metadata.image[_UUID].hex()
        """Names the metadata, and so the places of all data."""
        self._read = tree.read
        self._starts = array("Q")
        self._entries: list[Entry] = []
        at = len(metadata.image)
        for entry in file_entries(tree.tree):
            self._starts.append(at)
            self._entries.append(entry)
            at += (entry.size + BLOCK - 1) & -BLOCK
        if at != metadata.size:
            raise LayerError(f"the metadata are of another tree: {metadata.size} bytes of image, not {at}")

    def is_metadata(self, offset: int, size: int) -> bool:
        """Whether a read needs nothing but metadata, which are at hand."""
        return offset + size <= len(self.metadata)

    def read(self, offset: int, size: int) -> list[bytes | memoryview]:
        """The bytes from `offset`, at most `size`; fewer only at the image's end. Raises LazylayerError."""
        end = min(offset + size, self.size)
        parts: list[bytes | memoryview] = []
        if offset < len(self.metadata):
            parts.append(self.metadata[offset:end])
            offset = min(end, len(self.metadata))
        if offset >= end:
            return parts
        number = bisect_right(self._starts, offset) - 1
        while offset < end:
            entry, inner = self._entries[number], offset - self._starts[number]
            reaches = (entry.size + BLOCK - 1) & -BLOCK
            wanted = min(end - offset, reaches - inner)
            of_file = max(0, min(wanted, entry.size - inner))
            if of_file:
                data = self._read(entry, inner, of_file)
                if len(data) != of_file:
                    raise LayerError(f"{len(data)} bytes came where {of_file} of a file were asked for")
                parts.append(data)
            if wanted != of_file:
                parts.append(bytes(wanted - of_file))
            offset += wanted
            number += 1
        return parts
