"""Read and build zstd:chunked layers."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from lazylayer import hookimpl

if TYPE_CHECKING:
    from lazylayer.api.layers import FormatInfo, LayerContents
    from lazylayer.api.oci import Descriptor
    from lazylayer.api.opened import OpenedBlob
    from lazylayer_building import BuildOptions, BuiltLayer

_NEW_FOOTER = {"zstdchunked": False, "zstdchunked-podman": True}


@hookimpl
def lazylayer_describe_format() -> FormatInfo:
    """Describe zstd:chunked, with the annotations of the Go stargz-snapshotter and those of podman."""
    from lazylayer.api.labels import TOC_DIGEST
    from lazylayer.api.layers import FormatInfo
    from lazylayer_format_zstdchunked.annotations import ANNOTATIONS, TOC_CHECKSUMS
    from lazylayer_tarlayers.landmarks import LANDMARKS

    return FormatInfo(tuple(_NEW_FOOTER), ANNOTATIONS, TOC_DIGEST, TOC_CHECKSUMS, tuple(LANDMARKS))


@hookimpl
def lazylayer_open_layer(blob: OpenedBlob, descriptor: Descriptor, verify: bool) -> LayerContents | None:
    """Open layers that end with a zstd:chunked footer, or have its annotations."""
    if "gzip" in descriptor.media_type:
        return None
    from lazylayer_format_zstdchunked.reader import open_contents

    return open_contents(blob, descriptor, verify)


@hookimpl
def lazylayer_daemon_started() -> None:
    """Import the reader."""
    import lazylayer_format_zstdchunked.reader  # noqa: F401


@hookimpl
def lazylayer_build_layer(
    format: str, source: IO[bytes], destination: IO[bytes], build_options: BuildOptions
) -> BuiltLayer:
    """Build layers of the formats `zstdchunked` and `zstdchunked-podman`."""
    from lazylayer_format_zstdchunked.builder import build_layer

    return build_layer(source, destination, build_options, new_footer=_NEW_FOOTER[format])
