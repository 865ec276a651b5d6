"""Read and build eStargz layers, and read legacy stargz layers."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from lazylayer import hookimpl
from lazylayer.errors import BuildError

if TYPE_CHECKING:
    from lazylayer.api.layers import FormatInfo, LayerContents
    from lazylayer.api.oci import Descriptor
    from lazylayer.api.opened import CompanionImages, OpenedBlob
    from lazylayer_building import BuildOptions, BuiltLayer


@hookimpl
def lazylayer_describe_format() -> FormatInfo:
    """Describe eStargz and legacy stargz, which is only read."""
    from lazylayer.api.labels import TOC_DIGEST
    from lazylayer.api.layers import FormatInfo
    from lazylayer_tarlayers.annotations import UNCOMPRESSED_SIZE
    from lazylayer_tarlayers.landmarks import LANDMARKS
    from lazylayer_tarlayers.toc import TOC_NAME

    hidden = (*LANDMARKS, TOC_NAME.encode())
    return FormatInfo(("estargz", "stargz"), (TOC_DIGEST, UNCOMPRESSED_SIZE), TOC_DIGEST, hidden_files=hidden)


@hookimpl
def lazylayer_open_layer(
    blob: OpenedBlob, descriptor: Descriptor, verify: bool, companions: CompanionImages
) -> LayerContents | None:
    """Open layers that end with a stargz footer."""
    if "zstd" in descriptor.media_type:
        return None
    from lazylayer_format_estargz.reader import open_contents

    return open_contents(blob, descriptor, verify, companions)


@hookimpl
def lazylayer_daemon_started() -> None:
    """Import the reader."""
    import lazylayer_format_estargz.reader  # noqa: F401


@hookimpl
def lazylayer_build_layer(
    format: str, source: IO[bytes], destination: IO[bytes], build_options: BuildOptions
) -> BuiltLayer:
    """Build layers of the format `estargz`."""
    if format != "estargz":
        raise BuildError(f"{format} layers cannot be verified, so they are only read; use --format estargz")
    from lazylayer_format_estargz.builder import build_layer

    return build_layer(source, destination, build_options)
