"""eStargz and legacy stargz layers: reader and builder."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from lazylayer import hookimpl

if TYPE_CHECKING:
    from lazylayer.api.building import BuildOptions, BuiltLayer
    from lazylayer.api.layers import LayerContents
    from lazylayer.api.oci import Descriptor
    from lazylayer.api.opened import CompanionImages, OpenedBlob


@hookimpl
def lazylayer_open_layer(
    blob: OpenedBlob, descriptor: Descriptor, verify: bool, companions: CompanionImages
) -> LayerContents | None:
    """Opens layers that end with a stargz footer."""
    if "zstd" in descriptor.media_type:
        return None
    from lazylayer_format_estargz.reader import open_contents

    return open_contents(blob, descriptor, verify, companions)


@hookimpl
def lazylayer_warm_up() -> None:
    """Imports the reader."""
    import lazylayer_format_estargz.reader  # noqa: F401


@hookimpl
def lazylayer_build_layer(
    format: str, source: IO[bytes], destination: IO[bytes], options: BuildOptions
) -> BuiltLayer | None:
    """Builds layers of the format `estargz`."""
    if format != "estargz":
        return None
    from lazylayer_format_estargz.builder import build_layer

    return build_layer(source, destination, options)
