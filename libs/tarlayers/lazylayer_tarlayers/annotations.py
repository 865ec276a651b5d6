"""The annotations by which the stargz-like formats describe a layer."""

from __future__ import annotations

from lazylayer.api.labels import TOC_DIGEST

__all__ = [
    "LAYER_DIGEST",
    "LAYER_FORMAT_ANNOTATIONS",
    "PODMAN_TARSPLIT_CHECKSUM",
    "PODMAN_TARSPLIT_POSITION",
    "PODMAN_TOC_CHECKSUM",
    "PODMAN_TOC_POSITION",
    "UNCOMPRESSED_SIZE",
    "ZSTD_TOC_CHECKSUM",
    "ZSTD_TOC_POSITION",
]

LAYER_DIGEST = "containerd.io/snapshot/stargz/layer.digest"


UNCOMPRESSED_SIZE = "io.containers.estargz.uncompressed-size"


ZSTD_TOC_CHECKSUM = "io.containers.zstd-chunked.manifest-checksum"


ZSTD_TOC_POSITION = "io.containers.zstd-chunked.manifest-position"


PODMAN_TOC_CHECKSUM = "io.github.containers.zstd-chunked.manifest-checksum"


PODMAN_TOC_POSITION = "io.github.containers.zstd-chunked.manifest-position"


PODMAN_TARSPLIT_CHECKSUM = "io.github.containers.zstd-chunked.tarsplit-checksum"


PODMAN_TARSPLIT_POSITION = "io.github.containers.zstd-chunked.tarsplit-position"


LAYER_FORMAT_ANNOTATIONS = (
    TOC_DIGEST,
    UNCOMPRESSED_SIZE,
    ZSTD_TOC_CHECKSUM,
    ZSTD_TOC_POSITION,
    PODMAN_TOC_CHECKSUM,
    PODMAN_TOC_POSITION,
    PODMAN_TARSPLIT_CHECKSUM,
    PODMAN_TARSPLIT_POSITION,
)
"""The annotations of a layer that say how it can be fetched lazily; they are void for other bytes."""
