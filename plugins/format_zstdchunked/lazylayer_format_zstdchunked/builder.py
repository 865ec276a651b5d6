"""Build zstd:chunked layers: frames, the TOC in a skippable frame, and the footer in another."""

from __future__ import annotations

from typing import IO

from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.oci import Descriptor, MediaType, sha256_digest
from lazylayer.errors import BuildError, FormatError
from lazylayer_building import BuildOptions, BuiltLayer
from lazylayer_format_zstdchunked.annotations import ZSTD_TOC_CHECKSUM, ZSTD_TOC_POSITION
from lazylayer_format_zstdchunked.footer import FRAME_HEADER, TocPlace, make_footer, skippable_frame
from lazylayer_format_zstdchunked.frames import zstd_compressor
from lazylayer_tarlayers.annotations import UNCOMPRESSED_SIZE
from lazylayer_tarlayers.members import Member, MemberWriter
from lazylayer_tarlayers.packing import END_OF_ARCHIVE, pack_archive
from lazylayer_tarlayers.toc import encode_toc
from lazylayer_tarlayers.tocreading import read_toc

__all__ = ["build_layer"]


def build_layer(source: IO[bytes], destination: IO[bytes], options: BuildOptions, *, new_footer: bool) -> BuiltLayer:
    """Build a zstd:chunked layer; see `lazylayer_building.hookspecs.lazylayer_build_layer`."""
    if options.external_toc or options.keep_diff_id:
        raise BuildError("zstd:chunked layers keep their table of contents inside; use --format estargz for it")
    compress = zstd_compressor(options.level)
    with MemberWriter(destination, compress, options.jobs) as writer:
        entries = pack_archive(source, writer, options)
        end = Member()
        end.append(END_OF_ARCHIVE)
        writer.add(end)
        writer.flush()
        toc = encode_toc(entries)
        compressed = compress(toc)
        place = TocPlace(writer.size + FRAME_HEADER, len(compressed), len(toc))
        writer.write(skippable_frame(compressed))
        writer.write(make_footer(place, new=new_footer))
        try:
            read_toc(toc, blob_size=writer.size, data_end=place.offset - FRAME_HEADER, verify=True)
        except FormatError as error:
            raise BuildError(f"the archive holds something that no layer can show: {error}") from error
        annotations = {
            TOC_DIGEST: sha256_digest(toc),
            UNCOMPRESSED_SIZE: str(writer.plain_size),
            ZSTD_TOC_CHECKSUM: sha256_digest(compressed),
            ZSTD_TOC_POSITION: f"{place.offset}:{place.size}:{place.inflated}:1",
        }
        descriptor = Descriptor(MediaType.OCI_LAYER_ZSTD, writer.digest, writer.size, annotations)
        return BuiltLayer(descriptor, writer.plain_digest)
