"""Cuts a tar archive into members and chunks: what builders of stargz-like layers have in common.

Each file's content begins a new member and is cut into chunks of `chunk_size`; what follows it
(padding, headers of the next files) stays in the member. With `min_chunk_size` small files share
members. Members of the archive are copied byte for byte, with few exceptions: sparse files are
written out, since a chunk must be what a reader reads; members that depend on a global header get
one that says it all; and what an earlier conversion added (landmarks, a TOC) is left out. With
`keep_diff_id` there are no exceptions, and no landmark is added.

Source: the eStargz specification of the Go stargz-snapshotter, `docs/estargz.md`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import IO

from lazylayer.api.building import BuildOptions
from lazylayer.api.chunks import MAX_CHUNK_SIZE
from lazylayer.api.tree import clean_path
from lazylayer.errors import BuildError
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
"""Bytes. So much of headers is enough for a member of its own: else reading a chunk would inflate them."""
_PIECE = 1024 * 1024
_Read = Callable[[int], bytes | memoryview]
_OURS = (*LANDMARKS, TOC_NAME.encode())


def pack_archive(source: IO[bytes], writer: MemberWriter, options: BuildOptions) -> list[TocEntry]:
    """Writes the members of the archive that `source` holds; returns its TOC's entries, complete.

    The end of the archive is not written: the format says what comes in front of it. Raises
    FormatError for an archive that is broken and BuildError for one that cannot be represented.
    """
    if not 0 < options.chunk_size <= MAX_CHUNK_SIZE - options.min_chunk_size or options.min_chunk_size < 0:
        raise BuildError(
            f"chunks of {options.chunk_size} bytes, packed up to {options.min_chunk_size}, cannot be: "
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
    """Packs all bytes of the archive as they are, also those that are of no use."""
    if options.prefetch:
        raise BuildError("what is to be prefetched cannot be put first where the diff ID is kept")
    recorded = _Recording(source)
    reader = TarReader(recorded)
    for member in reader:
        packer.append(recorded.take())
        if member.sparse is not None:
            raise BuildError(f"{member.name!r} is a sparse file, so that the layer cannot keep its diff ID")
        if clean_path(member.name) == TOC_NAME.encode():
            while reader.read(_PIECE):
                packer.append(recorded.take())
        else:
            packer.add(member, _Unrecorded(reader, recorded).read)
    packer.append(recorded.take())
    while piece := source.read(_PIECE):
        packer.append(piece)


class _Recording:
    """Reads a source, and remembers all bytes that were read until they are taken."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._pieces: list[bytes] = []

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, as the source gives them."""
        data = self._source.read(size)
        self._pieces.append(data)
        return data

    def take(self) -> bytes:
        """What was read since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


class _Unrecorded:
    """The content of a member, which is not to be remembered."""

    def __init__(self, content: TarReader, recorded: _Recording) -> None:
        self._content = content
        self._recorded = recorded

    def read(self, size: int) -> bytes:
        """The next `size` bytes."""
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
        """Takes the next member of the archive; `content` is at its beginning."""
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
        """Takes a member whose header was appended, but not the padding behind the content that `read` reads."""
        if member.kind == "hardlink":
            self._toc.add_link(member)
            return
        entry = self._toc.add(member)
        if member.size and member.kind == "reg":
            self._add_content(member, entry, read)

    def add_landmark(self, name: bytes) -> None:
        """Adds a landmark, in a member of its own: everything in front of it lies in front of that."""
        member = TarMember(name, "reg", mode=0o644, size=len(LANDMARK_CONTENT))
        self.append(make_header(member))
        self._cut()
        self._member.append_chunk(self._toc.add(member), LANDMARK_CONTENT)
        self.append(bytes(padding(len(LANDMARK_CONTENT))))
        self._cut()

    def finish(self) -> list[TocEntry]:
        """Hands over what is left, and returns the TOC's entries when all is written."""
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
        """Appends headers or padding to the current member."""
        if not piece:
            return
        if self._tail > _MAX_TAIL:
            self._cut()
        self._member.append(piece)
        self._tail += len(piece)

    def _cut(self) -> None:
        """Ends the current member."""
        if self._member.size:
            self._writer.add(self._member)
            self._member = Member()
        self._tail = 0
