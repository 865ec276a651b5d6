"""The image as one file: metadata, then the data of each file of the tree."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections.abc import Callable

from lazylayer.api.mounting import MountableTree
from lazylayer.api.tree import Entry
from lazylayer.errors import LayerError
from lazylayer_frontend_erofs.format import BLOCK, SUPERBLOCK_OFFSET
from lazylayer_frontend_erofs.writer import Metadata, file_entries, write_metadata

__all__ = ["Image"]

_UUID = slice(SUPERBLOCK_OFFSET + 48, SUPERBLOCK_OFFSET + 64)


class Image:
    """Reads of the image. Safe to use from any thread.

    The kernel caches the metadata, so they need not stay here as well: `release_metadata` drops them, and
    `make_metadata` makes them again if the kernel asks after all.
    `Image._lock` is held while they are made.
    """

    def __init__(
        self, tree: MountableTree, metadata: Metadata, make_metadata: Callable[[], Metadata] | None = None
    ) -> None:
        self.size = metadata.size
        self.metadata_size = len(metadata.image)
        self.name = _name(metadata)
        """Names the metadata, and so the places of all data."""
        self._metadata: memoryview | None = memoryview(metadata.image)
        self._make_metadata = make_metadata or (lambda: write_metadata(tree.tree))
        self._lock = threading.Lock()
        self._read = tree.read
        self._starts = array("Q")
        self._entries: list[Entry] = []
        at = self.metadata_size
        for entry in file_entries(tree.tree):
            self._starts.append(at)
            self._entries.append(entry)
            at += (entry.size + BLOCK - 1) & -BLOCK
        if at != metadata.size:
            raise LayerError(f"the metadata are of another tree: {metadata.size} bytes of image, not {at}")

    @property
    def metadata(self) -> memoryview:
        """The metadata. Raises LayerError if they cannot be made again as they were."""
        metadata = self._metadata
        return self._made_again() if metadata is None else metadata

    def _made_again(self) -> memoryview:
        with self._lock:
            if self._metadata is None:
                metadata = self._make_metadata()
                if _name(metadata) != self.name or len(metadata.image) != self.metadata_size:
                    raise LayerError("the metadata of a mount cannot be made again as they were")
                self._metadata = memoryview(metadata.image)
            return self._metadata

    def release_metadata(self) -> None:
        """Release the metadata until they are needed again."""
        with self._lock:
            self._metadata = None

    def is_metadata(self, offset: int, size: int) -> bool:
        """Return True if a read needs nothing but metadata."""
        return offset + size <= self.metadata_size

    def read(self, offset: int, size: int) -> list[bytes | memoryview]:
        """Return the bytes from `offset`, at most `size`; fewer only at the image's end. Raises LazylayerError."""
        end = min(offset + size, self.size)
        parts: list[bytes | memoryview] = []
        if offset < self.metadata_size:
            parts.append(self.metadata[offset:end])
            offset = min(end, self.metadata_size)
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


def _name(metadata: Metadata) -> str:
    return metadata.image[_UUID].hex()
