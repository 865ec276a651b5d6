"""Checks a whole image against everything that was promised of it.

Of each layer: the blob against its size and digest; the archive that it inflates to against the diff
ID of the image config; the table of contents against the digest in the manifest; and every chunk
against the table. Each blob is fetched once, into a temporary file.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import IO

import msgspec

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import Descriptor, Digest, Reference, ResolvedImage
from lazylayer.api.sources import BlobSource
from lazylayer.errors import FormatError, LazylayerError, UnavailableError
from lazylayer.fetching import Blob, BlobStream, Opening
from lazylayer.layers import Companions
from lazylayer.plugin.hooks import Hooks
from lazylayer_tarlayers.plainlayer import PlainLayer

__all__ = ["LayerVerification", "verify_image"]

_PIECE = 1024 * 1024
_MAX_PROBLEMS = 20


class LayerVerification(msgspec.Struct, frozen=True):
    """What was found out about a layer; it is as promised if there are no `problems`.

    `format` is empty for a layer that cannot be fetched lazily; `chunks` says how many were checked.
    """

    digest: Digest
    size: int
    format: str
    chunks: int
    problems: tuple[str, ...]


def verify_image(
    hooks: Hooks, image: ResolvedImage, advance: Callable[[int], None] = lambda _: None
) -> Iterator[LayerVerification]:
    """Verifies the layers of an image that was resolved, lowest first; yields each when it is done.

    `advance` is told how many bytes of the blobs were read, each time. What is wrong with a layer
    is told, not raised.
    """
    diff_ids: Sequence[str] = image.config.rootfs.diff_ids
    for number, layer in enumerate(image.manifest.layers):
        problems: list[str] = []
        if number >= len(diff_ids):
            problems.append("the image config lists no diff ID for it")
        diff_id = diff_ids[number] if number < len(diff_ids) else ""
        with tempfile.TemporaryFile() as spool:
            try:
                found = _verify_layer(hooks, image.reference, layer, diff_id, spool, advance, problems)
            except LazylayerError as error:
                problems.append(str(error))
                found = "", 0
        yield LayerVerification(layer.digest, layer.size, *found, tuple(problems))


def _verify_layer(
    hooks: Hooks,
    reference: Reference,
    layer: Descriptor,
    diff_id: str,
    spool: IO[bytes],
    advance: Callable[[int], None],
    problems: list[str],
) -> tuple[str, int]:
    """Format and number of chunks of a layer; its problems are appended, or raised if they end the work."""
    with closing(hooks.resolve_blob(reference, layer)) as source, closing(BlobStream(source, layer, advance)) as stream:
        while piece := stream.read(_PIECE):
            spool.write(piece)
    spool.flush()
    blob = _FileSource(spool)
    with closing(BlobStream(blob, layer, lambda _: None)) as stream, closing(PlainLayer(stream, diff_id)) as plain:
        try:
            plain.finish()
        except LazylayerError as error:
            problems.append(str(error))
    if not hooks.formats().promised(layer.annotations):
        return "", 0
    opening = Opening(Blob(lambda: blob, layer.digest, layer.size))
    contents = hooks.open_layer(opening, layer, True, Companions(hooks, reference, opening))
    _verify_chunks(contents, blob, problems)
    return contents.format, len(contents.chunks)


def _verify_chunks(contents: LayerContents, blob: _FileSource, problems: list[str]) -> None:
    table = contents.chunks

    def verify_member(member: int) -> list[str]:
        start, end = table.member_range(member)
        numbers = table.chunks_of(member)
        size = max(table[number].inner + table[number].size for number in numbers)
        try:
            data = memoryview(contents.inflate(blob.read(start, end - start), size))
        except FormatError as error:
            return [f"the member at {start}: {error}"]
        return [
            f"chunk {number} at {start} is not what the table of contents says"
            for number in numbers
            if hashlib.sha256(data[table[number].inner :][: table[number].size]).digest() != table.digest(number)
        ]

    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "lazylayer-verify") as threads:
        for at in range(0, table.members, 1000):
            members = range(at, min(at + 1000, table.members))
            for found in threads.map(verify_member, members):
                problems += found
            if len(problems) > _MAX_PROBLEMS:
                problems[_MAX_PROBLEMS:] = ["and more of that kind"]
                return


class _FileSource(BlobSource):
    """A blob in a temporary file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._descriptor = file.fileno()
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        """The `size` bytes from `offset`."""
        data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise UnavailableError(f"the temporary file ends before byte {offset + size}")
        return data

    def fetch(self, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        """See `BlobSource.fetch`."""
        for start, end in ranges:
            for at in range(start, end, _PIECE):
                yield at, self.read(at, min(_PIECE, end - at))

    def check(self) -> None:
        """It can always be read."""
