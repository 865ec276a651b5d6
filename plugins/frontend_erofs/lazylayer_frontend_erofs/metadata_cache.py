"""Finished metadata on disk, so that the next mount of a layer has nothing to write.

A file is named after the identity of its tree, which is that of the layer's table of contents, and
says its own digest: one that was damaged, cut off or is of another version is thrown away and written
again. The metadata are held in memory while they are served, so that what happens to the file later
does no harm. Any number of processes may share the directory; it is for its owner only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from pathlib import Path

from loguru import logger

from lazylayer import __version__
from lazylayer_frontend_erofs.format import BLOCK
from lazylayer_frontend_erofs.writer import WRITER_VERSION, Metadata
from lazylayer_newfiles import NewFiles

__all__ = ["MetadataCache"]

_HEADER = struct.Struct("<16sQQ32s")
"""Magic, bytes of metadata, bytes of the image, digest of both numbers and the metadata."""
_MAGIC = b"lazylayer erofs1"
_LARGEST = 1 << 32


class MetadataCache:
    """The kept metadata below `root`, at most `limit` bytes of them. Safe to use from any thread."""

    def __init__(self, root: Path, limit: int) -> None:
        self._directory = root / "frontend_erofs"
        self._limit = limit
        self._new = NewFiles(str(self._directory), ".new-")
        with contextlib.suppress(OSError):
            self._new.sweep()

    def get(self, identity: str) -> Metadata | None:
        """Return the metadata of the tree with this identity; None if there are none, or they are damaged."""
        path = self._path(identity)
        try:
            with path.open("rb") as file:
                metadata = _read(file.read(_HEADER.size), file.read(_LARGEST))
            if metadata is None:
                logger.warning("{path} is damaged; it is written again", path=str(path))
                path.unlink(missing_ok=True)
            else:
                os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("kept metadata cannot be used: {error}", error=error)
            return None
        return metadata

    def put(self, identity: str, metadata: Metadata) -> None:
        """Keep the metadata, unless the disk is full or read-only."""
        if len(metadata.image) > self._limit:
            return
        header = _HEADER.pack(_MAGIC, len(metadata.image), metadata.size, _digest(metadata))
        try:
            with self._new.create() as (descriptor, temporary):
                with os.fdopen(descriptor, "wb", closefd=False) as file:
                    file.write(header)
                    file.write(metadata.image)
                Path(temporary).replace(self._path(identity))
            self._evict()
        except OSError as error:
            logger.warning("metadata are not kept: {error}", error=error)

    def _path(self, identity: str) -> Path:
        # Another version of the program, or of the writer, may make other metadata of a tree.
        name = hashlib.sha256(f"{__version__} {WRITER_VERSION} {identity}".encode()).hexdigest()
        return self._directory / f"{name}.metadata"

    def _evict(self) -> None:
        """Evict the files used longest ago until the rest is within the limit."""
        known = []
        for path in self._directory.glob("*.metadata"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                known.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in known)
        for _, size, path in sorted(known):
            if total <= self._limit + _HEADER.size * len(known):
                return
            path.unlink(missing_ok=True)
            total -= size


def _read(header: bytes, image: bytes) -> Metadata | None:
    if len(header) != _HEADER.size:
        return None
    magic, length, size, digest = _HEADER.unpack(header)
    if magic != _MAGIC or length != len(image) or not length or length % BLOCK or size < length:
        return None
    metadata = Metadata(image, size)
    return metadata if _digest(metadata) == digest else None


def _digest(metadata: Metadata) -> bytes:
    digest = hashlib.sha256(f"{len(metadata.image)} {metadata.size} ".encode())
    digest.update(metadata.image)
    return digest.digest()
