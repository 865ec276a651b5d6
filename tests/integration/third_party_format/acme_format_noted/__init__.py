"""Layers of gzip members, whose annotations say where the table of contents is, and what its digest is.

The layer is the plain tar archive, compressed member by member, so that every container engine can unpack it. The table
is the archive's last file, in a gzip member of its own.
"""

from __future__ import annotations

import gzip
import re
from typing import IO

from lazylayer import hookimpl
from lazylayer.api.layers import FormatInfo, LayerContents
from lazylayer.api.oci import Descriptor, MediaType, sha256_digest
from lazylayer.api.opened import OpenedBlob
from lazylayer.errors import BuildError, FormatError, LayerError, VerificationError
from lazylayer_building import BuildOptions, BuiltLayer
from lazylayer_tarlayers.inflate import inflate_gzip_member
from lazylayer_tarlayers.landmarks import LANDMARKS
from lazylayer_tarlayers.members import Member, MemberWriter
from lazylayer_tarlayers.packing import END_OF_ARCHIVE, pack_archive
from lazylayer_tarlayers.tarmember import TarMember, padding
from lazylayer_tarlayers.tarwriter import make_header
from lazylayer_tarlayers.toc import MAX_TOC_SIZE, encode_toc
from lazylayer_tarlayers.tocreading import read_toc

DIGEST, PLACE = "containerd.io/snapshot/acme.noted.digest", "containerd.io/snapshot/acme.noted.place"
TABLE = b"noted.json"
_PLACE = re.compile(r"([0-9]{1,15})\+([0-9]{1,15})")
_BLOCK = 512


@hookimpl
def lazylayer_describe_format() -> FormatInfo:
    """Describe the format."""
    return FormatInfo(("noted",), (DIGEST, PLACE), DIGEST, hidden_files=(*LANDMARKS, TABLE))


@hookimpl
def lazylayer_open_layer(blob: OpenedBlob, descriptor: Descriptor, verify: bool) -> LayerContents | None:
    """Open a layer whose annotations say where its table is."""
    noted = descriptor.annotations.get(PLACE, "")
    if not noted:
        return None
    try:
        place = _PLACE.fullmatch(noted)
        start, size = (int(place[1]), int(place[2])) if place else (0, 0)
        if not (0 < size <= MAX_TOC_SIZE and 0 < blob.size - start <= size + 4 * _BLOCK):
            raise FormatError(f"the annotation {PLACE} is {noted!r}")
        toc = inflate_gzip_member(blob.read(start, blob.size - start), _BLOCK + size)[_BLOCK:]
        digest = sha256_digest(toc)
        if verify and descriptor.annotations.get(DIGEST) != digest:
            raise VerificationError(f"the table of contents is not the one that the annotation {DIGEST} promises")
        tree, chunks = read_toc(toc, blob_size=blob.size, data_end=start, verify=verify)
    except LayerError as error:
        raise type(error)(f"layer {descriptor.digest} (noted): {error}") from error
    return LayerContents("noted", tree, chunks, digest, lambda data, size, _: inflate_gzip_member(data, size))


@hookimpl
def lazylayer_build_layer(source: IO[bytes], destination: IO[bytes], build_options: BuildOptions) -> BuiltLayer:
    """Build a layer."""
    if build_options.external_toc or build_options.keep_diff_id:
        raise BuildError("noted layers have their table of contents inside, and a diff ID of their own")
    level = 6 if build_options.level is None else build_options.level
    with MemberWriter(destination, lambda data: gzip.compress(data, level, mtime=0), build_options.jobs) as writer:
        toc = encode_toc(pack_archive(source, writer, build_options))
        start = writer.size
        last = Member()
        last.append(make_header(TarMember(TABLE, "reg", mode=0o444, size=len(toc))))
        last.append(toc + bytes(padding(len(toc))) + END_OF_ARCHIVE)
        writer.add(last)
        writer.flush()
        annotations = {DIGEST: sha256_digest(toc), PLACE: f"{start}+{len(toc)}"}
        descriptor = Descriptor(MediaType.OCI_LAYER_GZIP, writer.digest, writer.size, annotations)
        return BuiltLayer(descriptor, writer.plain_digest)
