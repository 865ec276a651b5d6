"""Build eStargz layers: members, the TOC as the archive's last member or in a companion, and the footer."""

from __future__ import annotations

from typing import IO

from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.oci import Descriptor, MediaType, sha256_digest
from lazylayer.errors import BuildError, FormatError
from lazylayer_building import BuildOptions, BuiltLayer, CompanionLayer
from lazylayer_format_estargz.compression import gzip_compressor
from lazylayer_format_estargz.footer import EXTERNAL_TOC_FOOTER, make_footer
from lazylayer_format_estargz.reader import TOC_IMAGE_SUFFIX
from lazylayer_tarlayers.annotations import LAYER_DIGEST, UNCOMPRESSED_SIZE
from lazylayer_tarlayers.members import Member, MemberWriter
from lazylayer_tarlayers.packing import END_OF_ARCHIVE, pack_archive
from lazylayer_tarlayers.tarmember import TarMember, padding
from lazylayer_tarlayers.tarwriter import make_header
from lazylayer_tarlayers.toc import TOC_NAME, encode_toc
from lazylayer_tarlayers.tocreading import read_toc

__all__ = ["build_layer"]


def build_layer(source: IO[bytes], destination: IO[bytes], options: BuildOptions) -> BuiltLayer:
    """Build an eStargz layer; see `lazylayer_building.hookspecs.lazylayer_build_layer`."""
    if options.keep_diff_id and not options.external_toc:
        raise BuildError("an eStargz layer keeps its diff ID only if its table of contents is external")
    compress = gzip_compressor(options.level)
    with MemberWriter(destination, compress, options.jobs) as writer:
        entries = pack_archive(source, writer, options)
        toc, toc_offset = encode_toc(entries), writer.size
        end = Member()
        if not options.external_toc:
            end.append(_toc_member(toc))
        if not options.keep_diff_id:
            end.append(END_OF_ARCHIVE)
        if end.size:
            writer.add(end)
        writer.flush()
        writer.write(EXTERNAL_TOC_FOOTER if options.external_toc else make_footer(toc_offset))
        try:
            read_toc(toc, blob_size=writer.size, data_end=toc_offset, verify=True)
        except FormatError as error:
            raise BuildError(f"the archive holds something that no layer can show: {error}") from error
        annotations = {TOC_DIGEST: sha256_digest(toc), UNCOMPRESSED_SIZE: str(writer.plain_size)}
        descriptor = Descriptor(MediaType.OCI_LAYER_GZIP, writer.digest, writer.size, annotations)
        companions = (
            (_toc_layer(descriptor, bytes(compress(_toc_member(toc) + END_OF_ARCHIVE))),)
            if options.external_toc
            else ()
        )
        return BuiltLayer(descriptor, writer.plain_digest, companions)


def _toc_member(toc: bytes) -> bytes:
    """Return the TOC as a member of a tar archive."""
    header = make_header(TarMember(TOC_NAME.encode(), "reg", mode=0o444, size=len(toc)))
    return header + toc + bytes(padding(len(toc)))


def _toc_layer(layer: Descriptor, data: bytes) -> CompanionLayer:
    """Return the layer of the TOC image that holds `data` for this layer."""
    annotations = {LAYER_DIGEST: str(layer.digest)}
    return CompanionLayer(
        TOC_IMAGE_SUFFIX, Descriptor(MediaType.OCI_LAYER_GZIP, sha256_digest(data), len(data), annotations), data
    )
