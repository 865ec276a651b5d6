"""Read a blob from a file, or from a part of an archive."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Descriptor
from lazylayer.api.sources import BlobSource
from lazylayer.errors import UnavailableError
from lazylayer_resolver_layout.files import LayoutFiles

__all__ = ["FileSource"]

_PIECE = 1024 * 1024


class FileSource(BlobSource):
    """One blob of a layout, in its file `name`. The file stays open, so it may be replaced on disk.

    `FileSource._lock` counts the readers, so that the file is never closed during a read.
    """

    def __init__(self, files: LayoutFiles, descriptor: Descriptor, name: str) -> None:
        self._name = f"{files.path}/{name}"
        self._part = files.open(name)
        self._lock = threading.Condition()
        self._readers = 0
        self._closed = False
        self.size = self._part.size
        if descriptor.size and descriptor.size != self.size:
            os.close(self._part.descriptor)
            raise UnavailableError(
                f"{self._name}: damaged: {self.size} bytes, expected {descriptor.size}; copy it again"
            )

    def fetch(self, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        """Yield the pieces of `ranges`. See `BlobSource.fetch`."""
        for start, end in ranges:
            at = start
            while at < end:
                piece = self._read(at, min(end - at, _PIECE))
                yield at, piece
                at += len(piece)

    def _read(self, offset: int, size: int) -> bytes:
        with self._lock:
            if self._closed:
                raise UnavailableError(f"{self._name}: already closed")
            self._readers += 1
        try:
            piece = os.pread(self._part.descriptor, size, self._part.start + offset)
        except OSError as error:
            raise UnavailableError(f"{self._name}: {error.strerror}") from error
        finally:
            with self._lock:
                self._readers -= 1
                self._lock.notify_all()
        if not piece or offset + len(piece) > self.size:
            raise UnavailableError(f"{self._name}: damaged: ends before byte {offset + size}; copy it again")
        return piece

    def check(self) -> None:
        """Read one byte. See `BlobSource.check`."""
        if self.size:
            self._read(0, 1)

    def describe(self) -> str:
        """Return the path of the file."""
        return self._name

    def close(self) -> None:
        """Wait for reads in flight, then close the file."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._lock.wait_for(lambda: not self._readers)
            os.close(self._part.descriptor)
