"""Read a whole blob in order and verify its size and digest."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Descriptor
from lazylayer.api.sources import BlobSource
from lazylayer.errors import UnavailableError, VerificationError

__all__ = ["BlobStream"]


_PIECE = 1024 * 1024


class BlobStream(io.RawIOBase):
    """The bytes of a blob, in order; its size and digest are checked at the end.

    `advance` is called with the size of each piece. Raises what `BlobSource.fetch` raises, and VerificationError.
    """

    def __init__(self, source: BlobSource, descriptor: Descriptor, advance: Callable[[int], None]) -> None:
        self._source = source
        self._descriptor = descriptor
        self._advance = advance
        self._pieces: Iterator[tuple[int, bytes]] = iter(())  # first of all: closed even when what follows fails
        size = source.size
        if descriptor.size and size != descriptor.size:
            raise UnavailableError(f"blob {descriptor.digest} has {size} bytes, but {descriptor.size} were promised")
        if size:
            self._pieces = source.fetch([ByteRange(0, size)])
        self._rest = b""
        self._size = size
        self._seen = 0
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, none only at the end; without a size, all that are left."""
        if size < 0:
            return b"".join(iter(lambda: self.read(_PIECE), b""))
        if not self._rest and size:
            self._rest = self._next()
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def _next(self) -> bytes:
        for _, piece in self._pieces:
            if piece:
                self._seen += len(piece)
                self._hash.update(piece)
                self._advance(len(piece))
                return piece
        if self._seen != self._size:
            raise UnavailableError(f"blob {self._descriptor.digest} ended after {self._seen} of {self._size} bytes")
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._descriptor.digest:
            raise VerificationError(f"blob {self._descriptor.digest} is damaged: what came has the digest {found}")
        return b""

    def close(self) -> None:
        """End the request."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        super().close()
