"""The types by which plugins describe a layer: format, contents, prefetch plan and locality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import msgspec

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.chunks import ChunkTable
from lazylayer.api.oci import Digest
from lazylayer.api.tree import Entry, Tree

__all__ = ["FormatInfo", "LayerContents", "Locality", "PrefetchPlan"]


class FormatInfo(msgspec.Struct, frozen=True):
    """A layer format, as `lazylayer_describe_format` describes it to verify, convert, pull and mounts.

    `names` are the format's names: those that `lazylayer convert --format` takes, and those that
    `LayerContents.format` has. `lazylayer_build_layer` is asked of the plugin whose format has the name.

    `annotations` lists every annotation of a layer that describes its bytes in this format. Converting
    the layer drops them, since they are void for other bytes. `lazylayer pull` hands them on.

    `toc_digest_label` is the annotation, and the label of a snapshot, that holds
    `LayerContents.toc_digest`. A mount by labels is refused unless the label has that digest.
    containerd passes on annotations whose names begin with `containerd.io/snapshot/`, and no others,
    when it pulls by itself, so choose such a name.

    `hidden_files` are files that the format adds to the root of a layer's archive and does not show: its
    landmarks, say, and the table itself.

    `other_promises` are further annotations that the format can verify a table of contents by.
    """

    names: tuple[str, ...]
    annotations: tuple[str, ...]
    toc_digest_label: str
    other_promises: tuple[str, ...] = ()
    hidden_files: tuple[bytes, ...] = ()

    def promises(self, annotations: Mapping[str, str]) -> bool:
        """Return True if these annotations of a layer promise a table of contents of this format."""
        return any(annotations.get(name) for name in (self.toc_digest_label, *self.other_promises))


class LayerContents(msgspec.Struct, frozen=True):
    """A layer as its format describes it, verified as far as possible without reading its data.

    `format` is one of the `FormatInfo.names` of the plugin. `toc_digest` is the digest of the table of
    contents that was read and checked. `inflate(data, size, offset)` is given the compressed bytes of the
    member that begins at `offset` of the blob, possibly with bytes of the next behind them. It returns exactly
    the first `size` bytes that the member inflates to, and raises FormatError if there are fewer. It holds no
    more than `size` bytes beyond its input, and may be called from several threads at once. Its caller verifies
    the result, or has verified the input of a member that the chunk table seals.
    """

    format: str
    tree: Tree
    chunks: ChunkTable
    toc_digest: Digest
    inflate: Callable[[bytes | memoryview, int, int], bytes]


class PrefetchPlan(msgspec.Struct, frozen=True):
    """The bytes of a layer's blob to fetch before its first use.

    `ranges` are fetched in the order given, and each member that lies whole in them is inflated,
    verified and cached. Without ranges nothing is prefetched. `reason` explains the plan in a few
    words, for logs.
    """

    ranges: tuple[ByteRange, ...] = ()
    reason: str = ""


@runtime_checkable
class Locality(Protocol):
    """A policy's knowledge of one layer, returned by `lazylayer_layer_opened` and called by misses.

    What is said here decides what comes along with a miss. Without any, a miss of one of several small files of
    one kind brings those beside it in their directory.
    """

    def follows(self, name: bytes, entry: Entry) -> bool:
        """Return True for a file to follow: one that is read all over, and that leads to others.

        What follows in such a file comes along with a miss of it, and `missed` hears of a miss of its start. Asked once
        for every file with data, behind the back of the layer's first reader. Be quick: layers have a million
        files. Look at no data.
        """

    def missed(self, path: bytes, entry: Entry) -> None:
        """Hear that a reader had the start of a followed file fetched. The file is here, or most of it.

        Called from a thread of its own, and at the same time for other files. Read it, and fetch what such a file
        will ask for. Not called for files found in a cache. An error is logged.

        :param path: the file's absolute path in the layer, without symlinks.
        """
