"""The names of annotations, labels and media types by which indexes are found."""

from __future__ import annotations

__all__ = [
    "INDEX_DIGEST",
    "INDEX_LABEL",
    "INDEX_TYPES",
    "LAYER_DIGEST",
    "ZTOC_DIGEST",
    "ZTOC_SIZE",
]

INDEX_DIGEST = "com.amazon.soci.index-digest"
"""Of an image's manifest: the digest of its index, version 2."""
LAYER_DIGEST = "com.amazon.soci.image-layer-digest"
"""Of a zTOC's descriptor: the layer that it describes."""
INDEX_LABEL = "containerd.io/snapshot/remote/soci.index.digest"
"""The label by which clients of SOCI's snapshotter name an index."""
INDEX_TYPES = ("application/vnd.amazon.soci.index.v1+json", "application/vnd.amazon.soci.index.v2+json")
"""The media types of an index's config, which tell its version."""

ZTOC_DIGEST = "containerd.io/snapshot/soci/ztoc.digest"
"""Ours, of a layer: the digest of its zTOC."""
ZTOC_SIZE = "containerd.io/snapshot/soci/ztoc.size"
"""Ours, of a layer: the size of its zTOC, in bytes."""
