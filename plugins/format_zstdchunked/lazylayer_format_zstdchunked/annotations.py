"""The annotations of zstd:chunked layers.

The Go stargz-snapshotter and the first containers/storage write the names in `io.containers`, podman
and skopeo of today those in `io.github.containers`; what they say is the same.
"""

from __future__ import annotations

from lazylayer.api.labels import TOC_DIGEST
from lazylayer_tarlayers.annotations import UNCOMPRESSED_SIZE

__all__ = ["ANNOTATIONS", "TOC_CHECKSUMS", "TOC_POSITIONS", "ZSTD_TOC_CHECKSUM", "ZSTD_TOC_POSITION"]

ZSTD_TOC_CHECKSUM = "io.containers.zstd-chunked.manifest-checksum"
ZSTD_TOC_POSITION = "io.containers.zstd-chunked.manifest-position"
_PODMAN = "io.github.containers.zstd-chunked."

TOC_CHECKSUMS = (ZSTD_TOC_CHECKSUM, _PODMAN + "manifest-checksum")
"""The sha256 of the table of contents, compressed."""

TOC_POSITIONS = (ZSTD_TOC_POSITION, _PODMAN + "manifest-position")
"""The place of the table: offset, size, inflated size and kind, with colons between."""

ANNOTATIONS = (
    TOC_DIGEST,
    UNCOMPRESSED_SIZE,
    *TOC_CHECKSUMS,
    *TOC_POSITIONS,
    _PODMAN + "tarsplit-checksum",
    _PODMAN + "tarsplit-position",
)
"""All annotations that describe the bytes of a layer in this format."""
