"""A layer format of a stranger, with names and annotations of its own: plain tar, a table behind it, a footer.

It stands for formats that lazylayer has never heard of.
"""

from __future__ import annotations

from typing import IO

from lazylayer import hookimpl
from lazylayer.api.layers import FormatInfo, LayerContents
from lazylayer.api.oci import Descriptor, MediaType, sha256_digest
from lazylayer.api.opened import OpenedBlob
from lazylayer.errors import VerificationError
from lazylayer_building import BuildOptions, BuiltLayer
from lazylayer_tarlayers.landmarks import LANDMARKS
from lazylayer_tarlayers.members import Member, MemberWriter
from lazylayer_tarlayers.packing import END_OF_ARCHIVE, pack_archive
from lazylayer_tarlayers.toc import encode_toc
from lazylayer_tarlayers.tocreading import read_toc

__all__ = ["TINY_TOC", "TinyFormat"]

TINY_TOC = "org.example.tiny.table"
_SIZE = "org.example.tiny.size"
_MAGIC = b"TINYTINY"
_FOOTER = 16


class TinyFormat:
    """The plugin."""

    @hookimpl
    def lazylayer_describe_format(self) -> FormatInfo:
        return FormatInfo(("tiny",), (TINY_TOC, _SIZE), TINY_TOC, hidden_files=tuple(LANDMARKS))

    @hookimpl
    def lazylayer_open_layer(self, blob: OpenedBlob, descriptor: Descriptor, verify: bool) -> LayerContents | None:
        footer = blob.read(blob.size - _FOOTER, _FOOTER) if blob.size > _FOOTER else b""
        if footer[8:] != _MAGIC:
            return None
        end = int.from_bytes(footer[:8], "little")
        start = end + len(END_OF_ARCHIVE)
        toc = blob.read(start, blob.size - _FOOTER - start)
        digest = sha256_digest(toc)
        if verify and descriptor.annotations.get(TINY_TOC) != digest:
            raise VerificationError(f"layer {descriptor.digest}: its table is not {descriptor.annotations}")
        tree, chunks = read_toc(toc, blob_size=blob.size, data_end=end, verify=verify)
        return LayerContents("tiny", tree, chunks, digest, lambda data, size, _: bytes(data[:size]))

    @hookimpl
    def lazylayer_build_layer(
        self, format: str, source: IO[bytes], destination: IO[bytes], build_options: BuildOptions
    ) -> BuiltLayer:
        with MemberWriter(destination, bytes, build_options.jobs) as writer:
            toc = encode_toc(pack_archive(source, writer, build_options))
            end = writer.size
            # Nothing is compressed, so the table belongs to the plain bytes; it stands behind the archive's end.
            rest = Member()
            rest.append(END_OF_ARCHIVE + toc + end.to_bytes(8, "little") + _MAGIC)
            writer.add(rest)
            writer.flush()
            annotations = {TINY_TOC: sha256_digest(toc), _SIZE: str(end)}
            descriptor = Descriptor(MediaType.OCI_LAYER, writer.digest, writer.size, annotations)
            return BuiltLayer(descriptor, writer.plain_digest)
