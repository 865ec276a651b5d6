"""Read and write the footers of stargz layers, empty gzip members that say where the TOC is.

Source: the eStargz specification of the Go stargz-snapshotter, `docs/estargz.md`. The extra field of
the gzip header (RFC 1952, 2.3.1) holds the offset of the TOC's member in 16 hexadecimal digits and
the word STARGZ; eStargz puts it in a subfield `SG`, legacy stargz did not. Where the TOC is in another
image, the subfield holds STARGZEXTERNALTOC instead.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["ESTARGZ_FOOTER_SIZE", "EXTERNAL_TOC_FOOTER", "Footer", "find_footer", "make_footer"]

ESTARGZ_FOOTER_SIZE = 51
"""Bytes; the longest of the footers."""

# FEXTRA, no time, no flags, any operating system; then an empty stored block, checksum 0, size 0.
_HEADER = rb"\x1f\x8b\x08\x04....[\x00-\xff][\x00-\xff]"
_END = rb"\x01\x00\x00\xff\xff\x00{8}"
_ESTARGZ = re.compile(_HEADER + rb"\x1a\x00SG\x16\x00([0-9a-fA-F]{16})STARGZ" + _END, re.DOTALL)
_LEGACY = re.compile(_HEADER + rb"\x16\x00([0-9a-fA-F]{16})STARGZ" + _END, re.DOTALL)


class Footer(NamedTuple):
    """A footer: the kind of layer, and where its TOC begins and ends in the blob, in bytes.

    `toc_offset` is None for a TOC in another image.
    """

    format: str
    toc_offset: int | None
    toc_end: int


def find_footer(tail: bytes, blob_size: int) -> Footer | None:
    """Return the footer at the end of `tail`, the last bytes of a blob of `blob_size`, or None."""
    for name, pattern, size in (("estargz", _ESTARGZ, 51), ("stargz", _LEGACY, 47)):
        match = pattern.fullmatch(tail[-size:])
        if match is not None:
            return Footer(name, int(match[1], 16), blob_size - size)
    if tail.endswith(EXTERNAL_TOC_FOOTER):
        return Footer("estargz", None, blob_size - len(EXTERNAL_TOC_FOOTER))
    return None


def make_footer(toc_offset: int) -> bytes:
    """Return the eStargz footer for a TOC whose member begins at `toc_offset`."""
    return _empty_member(b"SG\x16\x00%016xSTARGZ" % toc_offset)


def _empty_member(extra: bytes) -> bytes:
    head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + len(extra).to_bytes(2, "little")
    return head + extra + b"\x01\0\0\xff\xff" + bytes(8)


EXTERNAL_TOC_FOOTER = _empty_member(b"SG\x11\x00STARGZEXTERNALTOC")
"""The footer of a layer whose TOC is in another image; 46 bytes."""
