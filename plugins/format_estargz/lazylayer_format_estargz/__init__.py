"""eStargz and legacy stargz layers: reader and builder."""

from __future__ import annotations

from lazylayer import hookimpl
from lazylayer.blob import Blob
from lazylayer.contents import LayerContents
from lazylayer.oci import Descriptor
from lazylayer_format_estargz.reader import open_contents


@hookimpl
def lazylayer_open_layer(blob: Blob, descriptor: Descriptor, verify: bool) -> LayerContents | None:
    """Opens layers that end with a stargz footer."""
    return open_contents(blob, descriptor, verify)
