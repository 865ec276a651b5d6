"""Cut a tar archive into members and chunks, for builders of stargz-like layers.

Each file's content begins a new member and is cut into chunks of `chunk_size`; what follows it
(padding, headers of the next files) stays in the member. With `min_chunk_size` small files share
members. Members of the archive are copied byte for byte, with three exceptions. Sparse files are written out,
since a chunk must be what a reader reads. Members that depend on a global header get a complete header of their
own. Landmarks and the TOC of an earlier conversion are left out. With `keep_diff_id` nothing is changed, and no
landmark is added.

Source: the eStargz specification of the Go stargz-snapshotter, `docs/estargz.md`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import IO

from lazylayer.api.chunks import MAX_CHUNK_SIZE
from lazylayer.api.tree import clean_path
from lazylayer.errors import BuildError
from lazylayer_building import BuildOptions
from lazylayer_tarlayers.landmarks import LANDMARK_CONTENT, LANDMARKS
from lazylayer_tarlayers.members import Member, MemberWriter
from lazylayer_tarlayers.sparse import SparseContent
from lazylayer_tarlayers.tarmember import BLOCK, Readable, TarMember, padding
from lazylayer_tarlayers.tarreader import TarReader
from lazylayer_tarlayers.tarwriter import make_header
from lazylayer_tarlayers.toc import TOC_NAME, TocEntry
from lazylayer_tarlayers.tocbuilder import TocBuilder

__all__ = ["END_OF_ARCHIVE", "pack_archive"]

END_OF_ARCHIVE = bytes(2 * BLOCK)

_MAX_TAIL = 1024 * 1024
"""Bytes of headers that get a member of their own, since reading a chunk would inflate them."""
_PIECE = 1024 * 1024
_Read = Callable[[int], bytes | memoryview]
_OURS = (*LANDMARKS, TOC_NAME.encode())


def pack_archive(source: IO[bytes], writer: MemberWriter, options: BuildOptions) -> list[TocEntry]:
    """Write the members of the archive in `source` and return the complete entries of its TOC.

    The end of the archive is not written: the format decides what comes in front of it. Raises
    FormatError for a broken archive and BuildError for one that cannot be represented.
    """
    if not 0 < options.chunk_size <= MAX_CHUNK_SIZE - options.min_chunk_size or options.min_chunk_size < 0:
        raise BuildError(
            f"invalid chunk size {options.chunk_size}, packed up to {options.min_chunk_size}: "
            f"the two together may be {MAX_CHUNK_SIZE} at most"
        )
    packer = _Packer(writer, options)
    if options.keep_diff_id:
        _pack_exactly(source, packer, options)
    elif options.prefetch:
        from lazylayer_tarlayers.reordering import Reordered

        with Reordered(source, options.prefetch) as reordered:
            for member, content in reordered.first():
                packer.take(member, content)
            packer.add_landmark(LANDMARKS.prefetch)
            for member, content in reordered.rest():
                packer.take(member, content)
    else:
        packer.add_landmark(LANDMARKS.no_prefetch)
        reader = TarReader(source)
        for member in reader:
            packer.take(member, reader)
    return packer.finish()


def _pack_exactly(source: IO[bytes], packer: _Packer, options: BuildOptions) -> None:
    """Pack all bytes of the archive unchanged, useless ones too."""
    if options.prefetch:
        raise BuildError(
            "files cannot be put first in a layer that keeps its diff ID; leave out one of the two options"
        )
    recorded = _Recording(source)
    reader = TarReader(recorded)
    for member in reader:
        packer.append(recorded.take())
        if member.sparse is not None:
            raise BuildError(f"{member.name!r}: a layer with a sparse file cannot keep its diff ID")
        if clean_path(member.name) == TOC_NAME.encode():
            while reader.read(_PIECE):
                packer.append(recorded.take())
        else:
            packer.add(member, _Unrecorded(reader, recorded).read)
    packer.append(recorded.take())
    while piece := source.read(_PIECE):
        packer.append(piece)


class _Recording:
    """Reads a source, and keeps the bytes that it read until they are taken."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._pieces: list[bytes] = []

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, as the source gives them."""
        data = self._source.read(size)
        self._pieces.append(data)
        return data

    def take(self) -> bytes:
        """Return the bytes that were read since the last call."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


class _Unrecorded:
    """The content of a member, which is not kept."""

    def __init__(self, content: TarReader, recorded: _Recording) -> None:
        self._content = content
        self._recorded = recorded

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        data = self._content.read(size)
        self._recorded.take()
        return data


class _Packer:
    """Turns members of an archive into members of a layer."""

    def __init__(self, writer: MemberWriter, options: BuildOptions) -> None:
        self._writer = writer
        self._chunk_size = options.chunk_size
        self._min_chunk_size = options.min_chunk_size
        self._toc = TocBuilder()
        self._member = Member()
        self._tail = 0

    def take(self, member: TarMember, content: TarReader) -> None:
        """Take the next member of the archive; `content` is at its beginning."""
        if clean_path(member.name) in _OURS:
            return
        if member.sparse is not None or member.depends_on_others:
            self.append(make_header(member))
        else:
            self.append(member.raw)
        self.add(member, SparseContent(member, content).read if member.sparse is not None else content.view)
        if member.kind == "reg":
            self.append(bytes(padding(member.size)))

    def add(self, member: TarMember, read: _Read) -> None:
        """Take a member whose header was appended; `read` reads its content, without padding."""
        if member.kind == "hardlink":
            self._toc.add_link(member)
            return
        entry = self._toc.add(member)
        if member.size and member.kind == "reg":
            self._add_content(member, entry, read)

    def add_landmark(self, name: bytes) -> None:
        """Add a landmark in a member of its own, so that all files before it lie in front of that member."""
        member = TarMember(name, "reg", mode=0o644, size=len(LANDMARK_CONTENT))
        self.append(make_header(member))
        self._cut()
        self._member.append_chunk(self._toc.add(member), LANDMARK_CONTENT)
        self.append(bytes(padding(len(LANDMARK_CONTENT))))
        self._cut()

    def finish(self) -> list[TocEntry]:
        """Write the last member and return the TOC's entries."""
        self._cut()
        self._writer.flush()
        entries = self._toc.finish()
        for entry in entries:
            # A file of one chunk has the chunk's digest; one without content has that of nothing.
            if entry.type == "reg" and not entry.digest:
                entry.digest = entry.chunk_digest or f"sha256:{hashlib.sha256().hexdigest()}"
        return entries

    def _add_content(self, member: TarMember, entry: TocEntry, read: _Read) -> None:
        whole = hashlib.sha256() if member.size > self._chunk_size else None
        at = 0
        while at < member.size:
            data = read(min(self._chunk_size, member.size - at))
            chunk = self._toc.add_chunk(entry, at) if at else entry
            if whole is not None:
                whole.update(data)
                chunk.chunk_size = len(data)
            if not self._member.chunks or self._member.size >= self._min_chunk_size:
                self._cut()
            self._member.append_chunk(chunk, data)
            self._tail = 0
            at += len(data)
        if whole is not None:
            entry.digest = f"sha256:{whole.hexdigest()}"

    def append(self, piece: bytes) -> None:
        """Append headers or padding to the current member."""
        if not piece:
            return
        if self._tail > _MAX_TAIL:
            self._cut()
        self._member.append(piece)
        self._tail += len(piece)

    def _cut(self) -> None:
        """End the current member."""
        if self._member.size:
            self._writer.add(self._member)
            self._member = Member()
        self._tail = 0
