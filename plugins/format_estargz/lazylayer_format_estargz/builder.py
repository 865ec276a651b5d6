"""Builds eStargz layers: members, the TOC as the last member of the archive, and the footer."""

from __future__ import annotations

from typing import IO

from lazylayer.building import BuildOptions, BuiltLayer
from lazylayer.errors import BuildError, FormatError
from lazylayer.labels import TOC_DIGEST, UNCOMPRESSED_SIZE
from lazylayer.memberwriting import Member, MemberWriter
from lazylayer.oci import Descriptor, MediaType, sha256_digest
from lazylayer.packing import END_OF_ARCHIVE, pack_archive
from lazylayer.tararchive import TarMember, padding
from lazylayer.tarheaders import make_header
from lazylayer.toc import TOC_NAME, encode_toc, read_toc
from lazylayer_format_estargz.compression import gzip_compressor
from lazylayer_format_estargz.footer import make_footer

__all__ = ["build_layer"]


def build_layer(source: IO[bytes], destination: IO[bytes], options: BuildOptions) -> BuiltLayer:
    """Builds an eStargz layer; see `lazylayer.hookspecs.lazylayer_build_layer`."""
    with MemberWriter(destination, gzip_compressor(options.level), options.jobs) as writer:
        entries = pack_archive(source, writer, options)
        toc = encode_toc(entries)
        toc_offset = writer.size
        last = Member()
        last.append(make_header(TarMember(TOC_NAME.encode(), "reg", mode=0o444, size=len(toc))))
        last.append(toc)
        last.append(bytes(padding(len(toc))) + END_OF_ARCHIVE)
        writer.add(last)
        writer.flush()
        writer.write(make_footer(toc_offset))
        try:
            read_toc(toc, blob_size=writer.size, data_end=toc_offset, verify=True)
        except FormatError as error:
            raise BuildError(f"the archive holds what no layer can show: {error}") from error
        annotations = {TOC_DIGEST: sha256_digest(toc), UNCOMPRESSED_SIZE: str(writer.plain_size)}
        descriptor = Descriptor(MediaType.OCI_LAYER_GZIP, writer.digest, writer.size, annotations)
        return BuiltLayer(descriptor, writer.plain_digest)
