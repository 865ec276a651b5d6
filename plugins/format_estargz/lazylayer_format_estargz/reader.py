"""Open stargz layers: find the TOC with few requests, verify it, and read tree and chunk table.

Source for TOCs in another image: `docs/estargz.md` of the Go stargz-snapshotter, "eStargz image with an external
TOC": the image has the same name, with `-esgztoc` behind the tag, and each of its layers is a tar archive with the
TOC of the layer that its annotation names.
"""

from __future__ import annotations

from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import Descriptor, sha256_digest
from lazylayer.api.opened import CompanionImages, OpenedBlob
from lazylayer.errors import FormatError, LayerError, ResolveError, VerificationError
from lazylayer_format_estargz.footer import ESTARGZ_FOOTER_SIZE, find_footer
from lazylayer_tarlayers.annotations import LAYER_DIGEST
from lazylayer_tarlayers.inflate import GzipReader, inflate_gzip_member
from lazylayer_tarlayers.toc import MAX_TOC_SIZE, TOC_NAME, tail_size
from lazylayer_tarlayers.tocreading import read_toc

__all__ = ["TOC_IMAGE_SUFFIX", "open_contents"]

TOC_IMAGE_SUFFIX = "-esgztoc"
"""Behind the tag of an image: that of the image with its TOCs."""

_BLOCK = 512


def open_contents(
    blob: OpenedBlob, descriptor: Descriptor, verify: bool, companions: CompanionImages
) -> LayerContents | None:
    """Return the contents of a stargz layer, or None for a blob without a stargz footer.

    Needs one read of the blob, or two when the TOC is larger than expected; other images are asked only
    where the footer says that the TOC is there. See
    `lazylayer.api.hookspecs.layers.lazylayer_open_layer` for `verify` and the errors.
    """
    blob_size = blob.size
    if blob_size < ESTARGZ_FOOTER_SIZE:
        return None
    wanted = tail_size(blob_size)
    tail_start = blob_size - wanted
    tail = blob.read(tail_start, wanted)
    footer = find_footer(tail, blob_size)
    if footer is None:
        return None
    try:
        _check_promise(descriptor, verify)
        if footer.toc_offset is None:
            compressed, data_end = memoryview(_external_toc(descriptor, companions)), footer.toc_end
        else:
            compressed = _compressed_toc(blob, footer.toc_offset, footer.toc_end, tail, tail_start)
            data_end = footer.toc_offset
        toc = _checked_toc(_inflate_toc(compressed), descriptor, verify)
        tree, chunks = read_toc(toc, blob_size=blob_size, data_end=data_end, verify=verify)
        return LayerContents(
            footer.format, tree, chunks, sha256_digest(toc), lambda data, size, _: inflate_gzip_member(data, size)
        )
    except LayerError as error:
        raise type(error)(f"layer {descriptor.digest} ({footer.format}): {error}") from error


def _check_promise(descriptor: Descriptor, verify: bool) -> None:
    """Raise VerificationError for a layer that cannot be verified, before more of it is read."""
    if verify and not descriptor.annotations.get(TOC_DIGEST):
        raise VerificationError(
            f"the annotation {TOC_DIGEST} is missing, so the table of contents cannot be verified; "
            "convert the image again, or set fetch.verify = false to trust it unseen"
        )


def _checked_toc(toc: bytes, descriptor: Descriptor, verify: bool) -> bytes:
    promised, digest = descriptor.annotations.get(TOC_DIGEST, ""), sha256_digest(toc)
    if verify and digest != promised:
        raise VerificationError(f"its table of contents has the digest {digest}, but the annotation says {promised}")
    return toc


def _external_toc(descriptor: Descriptor, companions: CompanionImages) -> bytes:
    try:
        return companions.read_layer(TOC_IMAGE_SUFFIX, {LAYER_DIGEST: descriptor.digest}, MAX_TOC_SIZE)
    except ResolveError as error:
        raise type(error)(
            f"layer {descriptor.digest} (estargz) has its table of contents elsewhere: {error}"
        ) from error


def _compressed_toc(blob: OpenedBlob, toc_offset: int, toc_end: int, tail: bytes, tail_start: int) -> memoryview:
    if toc_offset >= toc_end:
        raise FormatError(f"its footer says that the table of contents is at {toc_offset}, behind the footer")
    size = toc_end - toc_offset
    if size > MAX_TOC_SIZE:
        raise FormatError(f"its footer says that the table of contents is {size} bytes, more than {MAX_TOC_SIZE}")
    if toc_offset < tail_start:
        tail = blob.read(toc_offset, tail_start - toc_offset) + tail
        tail_start = toc_offset
    return memoryview(tail)[toc_offset - tail_start :]


def _inflate_toc(compressed: memoryview) -> bytes:
    """Return the JSON in the tar archive that the gzip member at the start of `compressed` holds."""
    reader = GzipReader(compressed)
    header = reader.read(_BLOCK)
    name, _, _ = header[:100].partition(b"\0")
    if len(header) != _BLOCK or name != TOC_NAME.encode():
        raise FormatError(f"no table of contents where the footer says: found {name[:80]!r}")
    size = _octal(header[124:136])
    if not 0 < size <= MAX_TOC_SIZE:
        raise FormatError(f"the table of contents has {size} bytes, more than {MAX_TOC_SIZE}")
    toc = reader.read(size)
    if len(toc) != size:
        raise FormatError(f"the table of contents ends after {len(toc)} of {size} bytes")
    return toc


def _octal(field: bytes) -> int:
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise FormatError(f"invalid size of the table of contents: {field!r}") from None
