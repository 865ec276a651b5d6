"""Check a whole image against everything that it promises.

Of each layer: the blob against its size and digest; the archive that it inflates to against the diff ID of
the image config; the table of contents against the digest in the manifest; the archive against the table, file by
file; and every chunk against the table. Each blob is fetched once, into a temporary file.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import IO

import msgspec

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import Descriptor, Digest, ResolvedImage
from lazylayer.api.sources import BlobSource
from lazylayer.errors import LazylayerError, UnavailableError
from lazylayer.fetching import Blob, Opening, WantedMember, unpack
from lazylayer.layers import Companions
from lazylayer.program import Hooks
from lazylayer_tarlayers.archivetree import ArchiveComparison
from lazylayer_tarlayers.plainlayer import PlainLayer
from lazylayer_tarlayers.wholeblob import BlobStream
from lazylayer_tool_images.building import is_promised

__all__ = ["LayerVerification", "verify_image"]

_PIECE = 1024 * 1024
_MAX_PROBLEMS = 20
_MEMBERS_AT_ONCE = 1000


class LayerVerification(msgspec.Struct, frozen=True):
    """The outcome for one layer; it keeps its promises if there are no `problems`.

    `format` is empty for a layer that cannot be fetched lazily; `chunks` is how many were checked.
    """

    digest: Digest
    size: int
    format: str
    chunks: int
    problems: tuple[str, ...]


def verify_image(
    hooks: Hooks, image: ResolvedImage, advance: Callable[[int], None] = lambda _: None
) -> Iterator[LayerVerification]:
    """Verify the layers of a resolved image, lowest first; yield each outcome when it is known.

    `advance` is told how many bytes of the blobs were read, each time. Problems of a layer are in its
    outcome, not raised.
    """
    diff_ids: Sequence[str] = image.config.rootfs.diff_ids
    for number, layer in enumerate(image.manifest.layers):
        diff_id = diff_ids[number] if number < len(diff_ids) else ""
        check = _LayerCheck(hooks, image, layer)
        if not diff_id:
            check.problems.append("the image config lists no diff ID for it")
        with tempfile.TemporaryFile() as spool:
            try:
                check.fetch(spool, advance)
                check.run(_FileSource(spool), diff_id)
            except LazylayerError as error:
                check.problems.append(str(error))
        yield check.outcome()


class _LayerCheck:
    """The check of one layer, and what it found."""

    def __init__(self, hooks: Hooks, image: ResolvedImage, layer: Descriptor) -> None:
        self._hooks = hooks
        self._reference = image.reference
        self._layer = layer
        self._contents: LayerContents | None = None
        self.problems: list[str] = []

    def outcome(self) -> LayerVerification:
        """Return what was found so far."""
        if len(self.problems) > _MAX_PROBLEMS:
            self.problems[_MAX_PROBLEMS:] = ["and more of that kind"]
        found = ("", 0) if self._contents is None else (self._contents.format, len(self._contents.chunks))
        return LayerVerification(self._layer.digest, self._layer.size, *found, tuple(self.problems))

    def fetch(self, spool: IO[bytes], advance: Callable[[int], None]) -> None:
        """Write the blob to `spool`. Raises LazylayerError if that fails or the digest is wrong."""
        with (
            closing(self._hooks.resolve_blob(self._reference, self._layer)) as source,
            closing(BlobStream(source, self._layer, advance)) as stream,
        ):
            while piece := stream.read(_PIECE):
                spool.write(piece)
        spool.flush()

    def run(self, blob: _FileSource, diff_id: str) -> None:
        """Check the layer in a file; its problems are kept, or raised if they end the check."""
        if is_promised(self._hooks, self._layer.annotations):
            try:
                self._contents = self._open(blob)
            except LazylayerError as error:
                self.problems.append(str(error))
        comparison = self._comparison()
        self._read_archive(blob, diff_id, comparison.compare if comparison is not None else _nothing)
        if comparison is not None and comparison.unresolved:
            self._read_archive(blob, diff_id, comparison.compare_unresolved)
        if self._contents is not None:
            self._check_chunks(self._contents, blob)

    def _read_archive(self, blob: _FileSource, diff_id: str, compare: Callable[[PlainLayer], Iterator[str]]) -> None:
        with (
            closing(BlobStream(blob, self._layer, lambda _: None)) as stream,
            closing(PlainLayer(stream, diff_id)) as plain,
        ):
            try:
                for difference in compare(plain):
                    self.problems.append(difference)
                    if len(self.problems) > _MAX_PROBLEMS:
                        break
                plain.finish()
            except LazylayerError as error:
                self.problems.append(str(error))

    def _open(self, blob: _FileSource) -> LayerContents:
        opening = Opening(Blob(lambda: blob, self._layer.digest, self._layer.size))
        companions = Companions(self._hooks, self._reference, opening)
        return self._hooks.open_layer(opening, self._layer, True, companions)

    def _comparison(self) -> ArchiveComparison | None:
        contents = self._contents
        if contents is None:
            return None
        return ArchiveComparison(
            contents.tree, contents.chunks, self._hooks.formats().info(contents.format).hidden_files
        )

    def _check_chunks(self, contents: LayerContents, blob: _FileSource) -> None:
        table = contents.chunks

        def check_member(number: int) -> list[str]:
            member = WantedMember.of(table, number)
            data = blob.read(member.start, member.end - member.start)
            try:
                _, chunks = unpack(self._layer.digest, table, member, data, contents.inflate)
            except LazylayerError as error:
                return [str(error)]
            return [str(chunk) for chunk in chunks.values() if isinstance(chunk, LazylayerError)]

        with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "lazylayer-verify") as threads:
            for at in range(0, table.members, _MEMBERS_AT_ONCE):
                members = range(at, min(at + _MEMBERS_AT_ONCE, table.members))
                for found in threads.map(check_member, members):
                    self.problems += found
                if len(self.problems) > _MAX_PROBLEMS:
                    return


def _nothing(_: PlainLayer) -> Iterator[str]:
    """Compare nothing."""
    return iter(())


class _FileSource(BlobSource):
    """A blob in a temporary file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._descriptor = file.fileno()
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Return the `size` bytes from `offset`. Raises UnavailableError."""
        data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise UnavailableError(f"the temporary file ends before byte {offset + size}")
        return data

    def fetch(self, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        """Yield the bytes of ranges; see `BlobSource.fetch`."""
        for start, end in ranges:
            for at in range(start, end, _PIECE):
                yield at, self.read(at, min(_PIECE, end - at))

    def check(self) -> None:
        """Do nothing: the file can always be read."""
