"""Small layers of every format, and what must hold for a layer that a format plugin accepted."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import zstandard

import lazylayer_format_estargz as estargz
import lazylayer_format_zstdchunked as zstdchunked
from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import Descriptor, Digest, sha256_digest
from lazylayer.api.tree import Entry
from lazylayer.errors import FormatError, LazylayerError, NotFoundError
from lazylayer.fetching.unpacking import WantedMember, unpack
from lazylayer_building import BuildOptions
from lazylayer_format_estargz.footer import find_footer, make_footer
from lazylayer_format_zstdchunked.footer import FRAME_HEADER, TocPlace, skippable_frame
from lazylayer_format_zstdchunked.footer import find_footer as find_zstd_footer
from lazylayer_format_zstdchunked.footer import make_footer as make_zstd_footer

__all__ = ["FORMATS", "BuiltSample", "MemoryBlob", "open_layer", "problems_of", "sample_archive", "with_toc"]

MAX_SHOWN = 2_000_000
"""Bytes of one file that are read when it is compared."""


class MemoryBlob:
    """A blob in memory, as a format plugin is given it."""

    def __init__(self, data: bytes) -> None:
        self.digest = sha256_digest(data)
        self.size = len(data)
        self.data = data

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly the bytes asked for."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise FormatError(f"bytes {offset} to {offset + size} lie outside the blob of {self.size} bytes")
        return self.data[offset : offset + size]


class NoCompanions:
    """Images beside the layer's own: there are none."""

    def read_layer(self, suffix: str, annotations: Mapping[str, str], max_size: int) -> bytes:
        """Raise, since there are none."""
        raise NotFoundError(f"no image beside with the suffix {suffix}")

    def read_manifest(self, digest: Digest) -> bytes:
        raise NotFoundError(digest)

    def read_blob(self, descriptor: Descriptor, max_size: int) -> bytes:
        raise NotFoundError(descriptor.digest)


class BuiltSample(NamedTuple):
    """A layer of one format, with the files in it."""

    format: str
    data: bytes
    descriptor: Descriptor
    toc: bytes
    files: dict[bytes, bytes]


FILES = {
    "etc/os-release": b"NAME=torture\n" * 9,
    "bin/sh": random.Random(1).randbytes(90_000),
    "lib/big.so": random.Random(2).randbytes(40_000) + bytes(60_000),
    "lib/small.py": b"import os, sys\nfrom os import path\n" * 20,
    "empty": b"",
}


def sample_archive() -> bytes:
    """Return a plain tar archive with a little of everything."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as members:
        for directory in ("etc", "bin", "lib"):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            members.addfile(info)
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o755 if name.startswith("bin") else 0o644, 1_600_000_000
            info.pax_headers = {"SCHILY.xattr.user.name": "value"} if name == "empty" else {}
            members.addfile(info, io.BytesIO(data))
        for name, kind, target in (
            ("bin/bash", tarfile.LNKTYPE, "bin/sh"),
            ("bin/ash", tarfile.SYMTYPE, "sh"),
            ("dev", tarfile.CHRTYPE, ""),
            ("etc/.wh.gone", tarfile.REGTYPE, ""),
            ("lib/.wh..wh..opq", tarfile.REGTYPE, ""),
            ("pipe", tarfile.FIFOTYPE, ""),
            ("x" * 120 + "/" + "y" * 120, tarfile.SYMTYPE, "z" * 200),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            members.addfile(info)
    return archive.getvalue()


def build(format: str) -> BuiltSample:
    """Return the sample archive as a layer of `format`."""
    destination = io.BytesIO()
    plugin: Any = estargz if format == "estargz" else zstdchunked
    options = BuildOptions(chunk_size=16 * 1024, min_chunk_size=4096, jobs=1)
    built = plugin.lazylayer_build_layer(format, io.BytesIO(sample_archive()), destination, options)
    data = destination.getvalue()
    files = {name.encode(): content for name, content in FILES.items()}
    files[b"bin/bash"] = files[b"bin/sh"]
    return BuiltSample(format, data, built.descriptor, _toc_of(format, data), files)


FORMATS = ("estargz", "zstdchunked")


def _toc_of(format: str, data: bytes) -> bytes:
    if format == "zstdchunked":
        place = find_zstd_footer(data)
        assert place is not None
        return zstandard.ZstdDecompressor().decompress(data[place.offset : place.offset + place.size], place.inflated)
    footer = find_footer(data, len(data))
    assert footer is not None and footer.toc_offset is not None
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data[footer.toc_offset : footer.toc_end]))) as members:
        extracted = members.extractfile(members.getmembers()[0])
        assert extracted is not None
        return extracted.read()


def with_toc(sample: BuiltSample, toc: bytes) -> tuple[bytes, Descriptor]:
    """Return the layer with another table of contents, and with the digest of that."""
    if sample.format == "zstdchunked":
        place = find_zstd_footer(sample.data)
        assert place is not None
        data = sample.data[: place.offset - FRAME_HEADER]
        compressed = zstandard.ZstdCompressor().compress(toc)
        at = len(data) + FRAME_HEADER
        changed = (
            data + skippable_frame(compressed) + make_zstd_footer(TocPlace(at, len(compressed), len(toc)), new=False)
        )
    else:
        footer = find_footer(sample.data, len(sample.data))
        assert footer is not None and footer.toc_offset is not None
        data = sample.data[: footer.toc_offset]
        info = tarfile.TarInfo("stargz.index.json")
        info.size = len(toc)
        archive = info.tobuf() + toc + bytes(-len(toc) % 512) + bytes(1024)
        changed = data + gzip.compress(archive, 1, mtime=0) + make_footer(len(data))
    annotations: dict[str, str] = {TOC_DIGEST: sha256_digest(toc)}
    return changed, Descriptor(sample.descriptor.media_type, sha256_digest(changed), len(changed), annotations)


def open_layer(format: str, data: bytes, descriptor: Descriptor) -> LayerContents | None:
    """Open a layer as the core would; None if the format does not know it. Raises LazylayerError."""
    blob = MemoryBlob(data)
    if format == "estargz":
        return estargz.lazylayer_open_layer(blob, descriptor, True, NoCompanions())
    return zstdchunked.lazylayer_open_layer(blob, descriptor, True)


def problems_of(contents: LayerContents, data: bytes, expected: Mapping[bytes, bytes] | None) -> str:
    """Return what is wrong with an accepted layer: a name that leaves its tree, a wrong byte, or nothing.

    :param expected: the content of each file; None where the table of contents was changed, and its digests decide.
    """
    for path, entry in contents.tree.walk():
        name = path.rpartition(b"/")[2]
        if path and (name in (b"", b".", b"..") or b"\0" in name or len(name) > 255):
            return f"the tree has an entry named {name[:300]!r}"
        wrong = _wrong_bytes(contents, data, path, entry, expected)
        if wrong:
            return wrong
    return ""


def _wrong_bytes(
    contents: LayerContents, data: bytes, path: bytes, entry: Entry, expected: Mapping[bytes, bytes] | None
) -> str:
    if not entry.is_file or not entry.chunk_count:
        return ""
    table = contents.chunks
    end = 0
    for number in range(entry.first_chunk, entry.first_chunk + entry.chunk_count):
        chunk = table[number]
        if chunk.file_offset != end:
            return f"{path!r}: chunk {number} starts at {chunk.file_offset}, not at {end}"
        end += chunk.size
        if end > MAX_SHOWN:
            return ""
        member = WantedMember.of(table, table.member_of(number))
        try:
            piece = bytearray(data[member.start : member.end])
            _, chunks = unpack(Digest(""), table, member, piece, _inflate(contents))
            got = chunks[number]
        except LazylayerError:
            continue
        if isinstance(got, LazylayerError):
            continue
        if chunk.digest and hashlib.sha256(got).digest() != chunk.digest:
            return f"{path!r}: chunk {number} does not have its digest"
        if expected is not None and got != expected.get(path, b"")[chunk.file_offset : chunk.file_offset + chunk.size]:
            return f"{path!r}: chunk {number} has other bytes than the file"
    return "" if end == entry.size else f"{path!r}: its chunks have {end} bytes, the file {entry.size}"


def _inflate(contents: LayerContents) -> Callable[[memoryview, int, int], bytes]:
    return contents.inflate


def toc_value(sample: BuiltSample) -> Any:
    """Return the table of contents of a layer as a JSON value."""
    return json.loads(sample.toc)
