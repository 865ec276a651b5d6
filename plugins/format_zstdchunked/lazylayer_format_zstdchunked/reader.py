"""Open zstd:chunked layers: find the TOC with few requests, verify it, and read tree and chunk table."""

from __future__ import annotations

from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import Descriptor, Digest, sha256_digest
from lazylayer.api.opened import OpenedBlob
from lazylayer.errors import FormatError, LayerError, VerificationError
from lazylayer_format_zstdchunked.annotations import TOC_CHECKSUMS, TOC_POSITIONS
from lazylayer_format_zstdchunked.footer import FRAME_HEADER, LONGEST_FOOTER, TocPlace, find_footer, parse_position
from lazylayer_format_zstdchunked.frames import inflate_member
from lazylayer_tarlayers.toc import MAX_TOC_SIZE, tail_size
from lazylayer_tarlayers.tocreading import read_toc

__all__ = ["open_contents"]


def open_contents(blob: OpenedBlob, descriptor: Descriptor, verify: bool) -> LayerContents | None:
    """Return the contents of a zstd:chunked layer, or None for another blob.

    Needs one read of the blob; two when no annotation says where the TOC is and it is larger than
    expected. See `lazylayer.api.hookspecs.layers.lazylayer_open_layer` for `verify` and the errors.
    """
    try:
        positions = _values(descriptor, TOC_POSITIONS)
        if positions:
            place = parse_position(positions[0])
            return _read(blob, descriptor, verify, place, b"", blob.size)
        if blob.size < LONGEST_FOOTER:
            return None
        size = tail_size(blob.size)
        tail = blob.read(blob.size - size, size)
        found = find_footer(tail)
        return None if found is None else _read(blob, descriptor, verify, found, tail, blob.size - size)
    except LayerError as error:
        raise type(error)(f"layer {descriptor.digest} (zstd:chunked): {error}") from error


def _read(
    blob: OpenedBlob, descriptor: Descriptor, verify: bool, place: TocPlace, tail: bytes, tail_start: int
) -> LayerContents:
    compressed = _compressed_toc(blob, place, tail, tail_start)
    checksums = _values(descriptor, TOC_CHECKSUMS)
    promised = descriptor.annotations.get(TOC_DIGEST, "")
    if verify and not promised and not any(checksums):
        raise VerificationError(
            f"the table of contents cannot be verified: the annotations {', '.join((TOC_DIGEST, *TOC_CHECKSUMS))} "
            "are missing; convert the image again, or set fetch.verify = false to trust it unseen"
        )
    # Checked first, so that unverified bytes are not even inflated.
    for checksum in checksums:
        if verify and checksum and sha256_digest(compressed) != checksum:
            raise VerificationError(
                f"its compressed table of contents does not have the digest {checksum} that the annotation says"
            )
    toc = inflate_member(compressed, place.inflated)
    digest = sha256_digest(toc)
    if verify and promised and digest != promised:
        raise VerificationError(f"its table of contents has the digest {digest}, but the annotation says {promised}")
    data_end = max(place.offset - FRAME_HEADER, 0)
    tree, chunks = read_toc(toc, blob_size=blob.size, data_end=data_end, verify=verify)
    return LayerContents("zstdchunked", tree, chunks, Digest(digest), lambda data, size, _: inflate_member(data, size))


def _values(descriptor: Descriptor, names: tuple[str, ...]) -> list[str]:
    return [descriptor.annotations[name] for name in names if name in descriptor.annotations]


def _compressed_toc(blob: OpenedBlob, place: TocPlace, tail: bytes, tail_start: int) -> memoryview:
    if place.offset + place.size > blob.size:
        raise FormatError(f"its table of contents, {place.size} bytes at {place.offset}, would lie behind its end")
    if not 0 < place.inflated <= MAX_TOC_SIZE or place.size > MAX_TOC_SIZE:
        raise FormatError(
            f"its table of contents has {place.size} bytes, {place.inflated} inflated; "
            f"more than {MAX_TOC_SIZE} are refused"
        )
    if place.offset >= tail_start:
        start = place.offset - tail_start
        return memoryview(tail)[start : start + place.size]
    end = place.offset + place.size
    missing = blob.read(place.offset, min(end, tail_start) - place.offset)
    return memoryview(missing + tail[: max(end - tail_start, 0)])
