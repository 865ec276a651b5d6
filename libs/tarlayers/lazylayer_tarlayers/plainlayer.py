"""A layer as a stream: the plain tar archive that a blob holds, plain, gzip or zstd.

The archive is verified on the way against its digest, the diff ID of an image config. `PlainLayer` is used by
one thread. A thread of its own fetches, inflates and hashes a few MiB ahead, so that two cores have work.
"""

from __future__ import annotations

import hashlib
import io
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, cast

from lazylayer.api.oci import Digest
from lazylayer.errors import BuildError, FormatError, VerificationError
from lazylayer_tarlayers.inflate import INFLATE_ERRORS, gzip_inflater
from lazylayer_tarlayers.tarmember import Readable

__all__ = ["PlainLayer"]

_PIECE = 1024 * 1024
_PIECES_AHEAD = 6
_ZSTD_WINDOW = 128 * 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_MAGIC = b"\x2a\x4d\x18"


class PlainLayer(io.RawIOBase):
    """The plain tar archive of a layer. `diff_id` is the digest that it must have, or empty if unknown.

    Close it before the blob's stream, to end its thread.
    """

    def __init__(self, blob: Readable, diff_id: str = "") -> None:
        self._diff_id = diff_id
        self._hash = hashlib.sha256()
        self._ready: queue.Queue[bytes | BaseException] = queue.Queue(_PIECES_AHEAD)
        self._rest = memoryview(b"")
        self._ended = False
        self._stop = threading.Event()
        self.size = 0
        """Bytes of the archive that were read."""
        self._thread = threading.Thread(target=self._work, args=(blob,), name="lazylayer-inflate", daemon=True)
        self._thread.start()

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; none only at the end. Raises FormatError and VerificationError."""
        if size < 0:
            size = 1 << 62
        if size <= len(self._rest):
            data = bytes(self._rest[:size])
            self._rest = self._rest[size:]
        else:
            data = self._gather(size)
        self.size += len(data)
        return data

    def view(self, size: int) -> bytes | memoryview:
        """Return what `read` returns, without a copy where possible."""
        if not 0 < size <= len(self._rest):
            return self.read(size)
        data, self._rest = self._rest[:size], self._rest[size:]
        self.size += size
        return data

    def finish(self) -> Digest:
        """Read the rest of the blob and return the diff ID, checked. Raises FormatError and VerificationError."""
        while self.read(_PIECE):
            pass
        found = Digest(f"sha256:{self._hash.hexdigest()}")
        if self._diff_id and found != self._diff_id:
            raise VerificationError(f"its archive has the digest {found}, but the image config says {self._diff_id}")
        return found

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        while self._thread.is_alive():
            # It may be waiting for room.
            with suppress(queue.Empty):
                self._ready.get_nowait()
            self._thread.join(0.01)
        super().close()

    def _gather(self, size: int) -> bytes:
        pieces: list[memoryview] = []
        while size:
            if not self._rest:
                self._rest = memoryview(self._next())
                if not self._rest:
                    break
            pieces.append(self._rest[:size])
            self._rest = self._rest[size:]
            size -= len(pieces[-1])
        return b"".join(pieces)

    def _next(self) -> bytes:
        if self._ended:
            return b""
        piece = self._ready.get()
        if isinstance(piece, BaseException):
            self._ended = True
            raise piece
        self._ended = not piece
        return piece

    def _work(self, blob: Readable) -> None:
        """Run in the thread. An empty piece tells the reader that all was read and verified."""
        try:
            for piece in _inflate(_read_exactly(blob, 4), blob):
                self._hash.update(piece)
                self._ready.put(piece)
                if self._stop.is_set():
                    return
            while blob.read(_PIECE):
                pass
        except BaseException as error:  # noqa: BLE001 - told to the thread that reads
            self._ready.put(error)
        else:
            self._ready.put(b"")


def _read_exactly(blob: Readable, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := blob.read(size - len(data))):
        data += piece
    return data


def _inflate(head: bytes, blob: Readable) -> Iterator[bytes]:
    if head.startswith(_GZIP_MAGIC):
        return _gunzip(head, blob)
    if head == _ZSTD_MAGIC or (head[1:] == _SKIPPABLE_MAGIC and 0x50 <= head[0] <= 0x5F):
        return _unzstd(head, blob)
    return _plain(head, blob)


def _plain(head: bytes, blob: Readable) -> Iterator[bytes]:
    if head:
        yield head
    while piece := blob.read(_PIECE):
        yield piece


def _gunzip(head: bytes, blob: Readable) -> Iterator[bytes]:
    """Yield what the gzip members of a blob inflate to, in pieces of 1 MiB at most."""
    data = head
    while data:
        inflater = gzip_inflater()
        while not inflater.eof:
            if not data and not (data := blob.read(_PIECE)):
                raise FormatError("its gzip stream is cut short")
            try:
                piece = inflater.decompress(data, _PIECE)
            except INFLATE_ERRORS as error:
                raise FormatError(f"invalid gzip stream: {error}") from error
            data = inflater.unconsumed_tail
            if piece:
                yield piece
        data = inflater.unused_data.lstrip(b"\0") or _skip_zeros(blob)
        while len(data) < 2 and (more := blob.read(_PIECE)):
            data += more
        if data and not data.startswith(_GZIP_MAGIC):
            raise FormatError("its gzip stream is followed by something else")


def _skip_zeros(blob: Readable) -> bytes:
    """Return the next bytes that are not zeros, with which gzip may be padded."""
    while piece := blob.read(_PIECE):
        if piece := piece.lstrip(b"\0"):
            return piece
    return b""


def _unzstd(head: bytes, blob: Readable) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise BuildError("the layer is compressed with zstd; install the package zstandard") from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    # zstandard calls nothing of a file but `read`.
    source = cast("IO[bytes]", _Prefixed(head, blob))
    reader = decompressor.stream_reader(source, read_across_frames=True)
    while True:
        try:
            piece = reader.read(_PIECE)
        except zstandard.ZstdError as error:
            raise FormatError(f"invalid zstd stream: {error}") from error
        if not piece:
            return
        yield piece


class _Prefixed:
    """A stream with bytes put in front of it."""

    def __init__(self, head: bytes, blob: Readable) -> None:
        self._head = head
        self._blob = blob

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none only at the end."""
        head, self._head = self._head, b""
        return head or self._blob.read(size)
