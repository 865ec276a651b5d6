"""What a format plugin returns for a layer: its tree, its chunk map, and how to inflate it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.chunks import ChunkTable
from lazylayer.api.oci import Digest
from lazylayer.api.tree import Tree

__all__ = ["LayerContents"]


class LayerContents(msgspec.Struct, frozen=True):
    """A layer as its format describes it, verified as far as can be without reading its data.

    `toc_digest` is the digest of the table of contents that was read and checked. `inflate(data,
    size)` is given the compressed bytes of one member, possibly with bytes of the next behind them,
    and returns exactly the first `size` bytes that it inflates to; it raises FormatError if they
    cannot be had, holds no more than `size` bytes beyond its input, and may be called from several
    threads at once. Whoever calls it verifies what comes out.
    """

    format: str
    tree: Tree
    chunks: ChunkTable
    toc_digest: Digest
    inflate: Callable[[bytes | memoryview, int], bytes]


class PrefetchPlan(msgspec.Struct, frozen=True):
    """Which bytes of a layer's blob to fetch before its first use.

    `ranges` are fetched in the order given and everything whole in them is inflated, verified and
    cached; no ranges means that nothing is prefetched. `reason` says in a few words why, for logs.
    """

    ranges: tuple[ByteRange, ...] = ()
    reason: str = ""
