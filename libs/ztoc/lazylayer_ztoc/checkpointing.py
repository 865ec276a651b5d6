"""Read a layer once, in order: yield its plain bytes, and note checkpoints and digests on the way.

Memory holds one piece of the blob, one of the plain tar, and the windows of the checkpoints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import closing
from typing import Protocol

from lazylayer.api.oci import Digest
from lazylayer.errors import FormatError
from lazylayer_tarlayers.tarmember import Readable
from lazylayer_ztoc.model import WINDOW_SIZE, Checkpoint, Compression
from lazylayer_ztoc.zlibstream import ZlibStream

__all__ = ["MAX_CHECKPOINTS", "GzipPass", "LayerPass", "TarPass"]

MAX_CHECKPOINTS = 1 << 15
"""Of one layer: 1 GiB of windows."""

_PIECE = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"


class LayerPass(Protocol):
    """One pass over a layer: what it found is complete once `pieces` has ended."""

    compression: Compression
    span_size: int
    checkpoints: list[Checkpoint]
    span_digests: list[Digest]
    compressed_size: int
    plain_size: int

    def pieces(self) -> Generator[memoryview, None, None]:
        """Yield the plain tar. Each piece is valid until the next one is asked for."""
        ...

    def plain_digest(self) -> Digest:
        """Return the digest of the plain tar, the layer's diff ID."""
        ...


class GzipPass:
    """One pass over a gzip layer, of one member or of many.

    There is a checkpoint before the first block, and before each block that begins more than `span_size` plain bytes
    after the last one: the rule of SOCI, so that both make the same spans.
    """

    compression: Compression = "gzip"

    def __init__(self, blob: Readable, span_size: int) -> None:
        self._blob = blob
        self.span_size = span_size
        self.checkpoints: list[Checkpoint] = []
        self.span_digests: list[Digest] = []
        self.compressed_size = 0
        self.plain_size = 0
        self._plain_hash = hashlib.sha256()
        self._span_hash = hashlib.sha256()
        self._hashed = 0
        """End, in the blob, of the bytes that the digest of the current span covers."""
        self._chunk = b""
        self._last_byte = b""
        """The byte before the chunk."""

    def plain_digest(self) -> Digest:
        """Return the digest of the plain tar that was read so far."""
        return Digest(f"sha256:{self._plain_hash.hexdigest()}")

    def pieces(self) -> Generator[memoryview, None, None]:
        """Yield the plain tar. Raises FormatError, and the errors of the blob."""
        output = bytearray(_PIECE)
        view = memoryview(output)
        with closing(ZlibStream(output)) as stream:
            filled, ended = 0, True
            while self._more(stream, ended=ended):
                if ended:
                    stream.next_member()
                size, ended = stream.inflate(filled)
                filled += size
                self.plain_size += size
                if stream.before_block and not ended:
                    self._block_begins(stream)
                if filled == len(output):
                    yield self._passed(view)
                    filled = 0
            if filled:
                yield self._passed(view[:filled])
        self._end_span(self.compressed_size)

    def _passed(self, piece: memoryview) -> memoryview:
        self._plain_hash.update(piece)
        return piece

    # --- the blob ----------------------------------------------------------------------------------

    def _more(self, stream: ZlibStream, *, ended: bool) -> bool:
        """Feed the stream if it has no input; return False at the end of the blob, between two members.

        Zeros may follow a member, as gzip allows; anything else is an error.
        """
        while True:
            if not stream.left and not self._feed(stream):
                if ended and self.checkpoints:
                    return False
                raise FormatError(f"its gzip stream is cut short at {self.compressed_size}")
            if not ended or not self.checkpoints:
                return True
            rest = self._chunk[len(self._chunk) - stream.left :].lstrip(b"\0")
            if rest:
                if not _GZIP_MAGIC.startswith(rest[:2]):
                    at = self.compressed_size - len(rest)
                    raise FormatError(f"its gzip stream ends at {at}, and something else follows")
                stream.feed(self._chunk, len(self._chunk) - len(rest))
                return True
            stream.feed(b"")

    def _feed(self, stream: ZlibStream) -> bool:
        chunk = self._blob.read(_PIECE)
        if not chunk:
            return False
        self._hash_up_to(self.compressed_size)
        self._last_byte = self._chunk[-1:]
        self._chunk = bytes(chunk)
        self.compressed_size += len(chunk)
        stream.feed(self._chunk)
        return True

    # --- spans -------------------------------------------------------------------------------------

    def _block_begins(self, stream: ZlibStream) -> None:
        """Add a checkpoint here, if the last one is far enough away."""
        if self.checkpoints and self.plain_size - self.checkpoints[-1].out_offset <= self.span_size:
            return
        if len(self.checkpoints) == MAX_CHECKPOINTS:
            raise FormatError(f"more than {MAX_CHECKPOINTS} spans of {self.span_size} bytes; use larger spans")
        offset, bits = self.compressed_size - stream.left, stream.unused_bits
        if self.checkpoints:
            self._end_span(offset)
        if bits:
            before = offset - 1 - (self.compressed_size - len(self._chunk))
            self._span_hash.update(self._last_byte if before < 0 else self._chunk[before : before + 1])
        self._hashed = offset
        window = stream.window().rjust(WINDOW_SIZE, b"\0") if self.plain_size else b""
        self.checkpoints.append(Checkpoint(offset, self.plain_size, bits, window))

    def _end_span(self, end: int) -> None:
        self._hash_up_to(end)
        self.span_digests.append(Digest(f"sha256:{self._span_hash.hexdigest()}"))
        self._span_hash = hashlib.sha256()

    def _hash_up_to(self, end: int) -> None:
        """Add the bytes of the chunk that lie before `end` in the blob to the digest of the span."""
        if self.checkpoints:
            start = self.compressed_size - len(self._chunk)
            self._span_hash.update(memoryview(self._chunk)[max(self._hashed - start, 0) : end - start])
            self._hashed = end


class TarPass:
    """One pass over a plain tar. Its spans are all of `span_size` bytes, but for the last one."""

    compression: Compression = "uncompressed"

    def __init__(self, blob: Readable, span_size: int) -> None:
        self._blob = blob
        self.span_size = span_size
        self.checkpoints: list[Checkpoint] = []
        self.span_digests: list[Digest] = []
        self.compressed_size = 0
        self.plain_size = 0
        self._plain_hash = hashlib.sha256()
        self._span_hash = hashlib.sha256()

    def plain_digest(self) -> Digest:
        """Return the digest of the plain tar that was read so far."""
        return Digest(f"sha256:{self._plain_hash.hexdigest()}")

    def pieces(self) -> Generator[memoryview, None, None]:
        """Yield the plain tar. Raises FormatError, and the errors of the blob."""
        while piece := self._blob.read(_PIECE):
            view = memoryview(piece)
            self._plain_hash.update(view)
            at = 0
            while at < len(view):
                self._span_begins()
                size = min(len(view) - at, self.checkpoints[-1].out_offset + self.span_size - self.plain_size)
                self._span_hash.update(view[at : at + size])
                at += size
                self.plain_size += size
            self.compressed_size = self.plain_size
            yield view
        if self.checkpoints:
            self._end_span()

    def _span_begins(self) -> None:
        """Begin a span here, if the last one is full."""
        if self.checkpoints and self.plain_size < self.checkpoints[-1].out_offset + self.span_size:
            return
        if len(self.checkpoints) == MAX_CHECKPOINTS:
            raise FormatError(f"more than {MAX_CHECKPOINTS} spans of {self.span_size} bytes; use larger spans")
        if self.checkpoints:
            self._end_span()
        self.checkpoints.append(Checkpoint(self.plain_size, self.plain_size))

    def _end_span(self) -> None:
        self.span_digests.append(Digest(f"sha256:{self._span_hash.hexdigest()}"))
        self._span_hash = hashlib.sha256()
