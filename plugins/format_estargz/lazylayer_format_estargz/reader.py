"""Opens stargz layers: finds the TOC with few requests, verifies it, and makes tree and chunk table of it."""

from __future__ import annotations

from lazylayer.blob import Blob
from lazylayer.contents import LayerContents
from lazylayer.errors import FormatError, LayerError, VerificationError
from lazylayer.inflate import GzipReader, inflate_gzip_member
from lazylayer.labels import TOC_DIGEST
from lazylayer.oci import Descriptor, Digest, sha256_digest
from lazylayer.toc import MAX_TOC_SIZE, TOC_NAME, read_toc, tail_size
from lazylayer_format_estargz.footer import ESTARGZ_FOOTER_SIZE, Footer, find_footer

__all__ = ["open_contents"]

_BLOCK = 512


def open_contents(blob: Blob, descriptor: Descriptor, verify: bool) -> LayerContents | None:
    """The contents of a stargz layer, or None for a blob that has no stargz footer.

    Needs one read of the blob, or two when the TOC is larger than expected. See
    `lazylayer.hookspecs.lazylayer_open_layer` for `verify` and the errors.
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
        return _read(blob, descriptor, verify, footer, tail, tail_start)
    except LayerError as error:
        raise type(error)(f"layer {descriptor.digest} ({footer.format}): {error}") from error


def _read(
    blob: Blob, descriptor: Descriptor, verify: bool, footer: Footer, tail: bytes, tail_start: int
) -> LayerContents:
    promised = descriptor.annotations.get(TOC_DIGEST, "")
    if verify and not promised:
        raise VerificationError(
            f"the annotation {TOC_DIGEST} is missing, so the table of contents cannot be verified; "
            "convert the image again, or set fetch.verify = false to trust it unseen"
        )
    toc = _inflate_toc(_compressed_toc(blob, footer, tail, tail_start))
    digest = sha256_digest(toc)
    if verify and digest != promised:
        raise VerificationError(f"its table of contents has the digest {digest}, but {promised} was promised")
    tree, chunks = read_toc(toc, blob_size=blob.size, data_end=footer.toc_offset, verify=verify)
    return LayerContents(footer.format, tree, chunks, Digest(digest), inflate_gzip_member)


def _compressed_toc(blob: Blob, footer: Footer, tail: bytes, tail_start: int) -> memoryview:
    if footer.toc_offset >= footer.toc_end:
        raise FormatError(f"its footer says that the table of contents is at {footer.toc_offset}, behind the footer")
    size = footer.toc_end - footer.toc_offset
    if size > MAX_TOC_SIZE:
        raise FormatError(f"its footer says that the table of contents is {size} bytes, more than {MAX_TOC_SIZE}")
    if footer.toc_offset < tail_start:
        tail = blob.read(footer.toc_offset, tail_start - footer.toc_offset) + tail
        tail_start = footer.toc_offset
    return memoryview(tail)[footer.toc_offset - tail_start :]


def _inflate_toc(compressed: memoryview) -> bytes:
    """The JSON in the tar archive that the gzip member at the start of `compressed` holds."""
    reader = GzipReader(compressed)
    header = reader.read(_BLOCK)
    name, _, _ = header[:100].partition(b"\0")
    if len(header) != _BLOCK or name != TOC_NAME.encode():
        raise FormatError(f"{name!r} is where the table of contents should be")
    size = _octal(header[124:136])
    if not 0 < size <= MAX_TOC_SIZE:
        raise FormatError(f"the table of contents has {size} bytes; at most {MAX_TOC_SIZE} are believed")
    toc = reader.read(size)
    if len(toc) != size:
        raise FormatError(f"the table of contents ends after {len(toc)} of {size} bytes")
    return toc


def _octal(field: bytes) -> int:
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise FormatError(f"the size of the table of contents is {field!r}") from None
