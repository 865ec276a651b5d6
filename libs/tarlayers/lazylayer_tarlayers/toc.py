"""The table of contents (TOC) that eStargz, legacy stargz and zstd:chunked layers carry, as JSON.

`tocdecoding` decodes it, `tocreading` makes a tree and a chunk table of it, `tocbuilder` makes it.

Source: the eStargz specification of the Go stargz-snapshotter, docs/estargz.md. All functions may be called
from any thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = ["MAX_TOC_SIZE", "TOC_NAME", "Toc", "TocEntry", "encode_toc", "tail_size"]

TOC_NAME = "stargz.index.json"
"""The name of the TOC's entry in a layer's tar archive; the tree does not show it."""

MAX_TOC_SIZE = 256 * 1024 * 1024
"""Bytes of JSON; a larger TOC is refused."""

_TAIL_MIN = 64 * 1024
_TAIL_MAX = 2 * 1024 * 1024
_TAIL_FRACTION = 160


class TocEntry(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """One entry of a TOC, as it is written. Offsets and sizes in bytes.

    lazylayer adds `name_bytes` and `link_name_bytes`: JSON cannot hold a name that is not UTF-8, so the
    exact name is written besides. Other readers show `name`.
    """

    name: str = ""
    type: str = ""
    size: int = 0
    modtime: str = ""
    link_name: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    user_name: str = ""
    group_name: str = ""
    offset: int = 0
    """Start in the blob of the member that holds the data."""
    inner_offset: int = 0
    """Start of the data in the inflated member."""
    dev_major: int = 0
    dev_minor: int = 0
    xattrs: dict[str, bytes] | None = None
    digest: str = ""
    chunk_offset: int = 0
    chunk_size: int = 0
    chunk_digest: str = ""
    name_bytes: bytes = b""
    link_name_bytes: bytes = b""


class Toc(msgspec.Struct):
    """A table of contents."""

    version: int
    entries: list[TocEntry]


def encode_toc(entries: Sequence[TocEntry]) -> bytes:
    """Return the JSON of a TOC of these entries; the same entries always give the same bytes."""
    return msgspec.json.encode(Toc(1, list(entries)))


def tail_size(blob_size: int) -> int:
    """Return how many bytes to read from the end of a blob, so that most TOCs come with the footer.

    All formats that use this read the same range, so that it is fetched once.
    """
    return min(max(blob_size // _TAIL_FRACTION, _TAIL_MIN), _TAIL_MAX, blob_size)
