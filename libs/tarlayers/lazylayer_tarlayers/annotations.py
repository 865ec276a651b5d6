"""Annotations that several stargz-like formats write."""

from __future__ import annotations

__all__ = ["LAYER_DIGEST", "UNCOMPRESSED_SIZE"]

LAYER_DIGEST = "containerd.io/snapshot/stargz/layer.digest"
"""On a layer of a TOC image: the digest of the layer that its table of contents belongs to."""

UNCOMPRESSED_SIZE = "io.containers.estargz.uncompressed-size"
"""Bytes of the layer's archive, uncompressed."""
