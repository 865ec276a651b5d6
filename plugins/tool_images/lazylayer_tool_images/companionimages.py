"""Write companion images, which hold parts of another image's layers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import closing

from lazylayer.api.oci import Descriptor, Platform, Reference
from lazylayer.layers import Companions, companion_reference
from lazylayer_building import CompanionLayer, ImageStore
from lazylayer_tarlayers.plainlayer import PlainLayer
from lazylayer_tool_images.imagewriting import image_config, write_image

__all__ = ["RecordedCompanions", "write_companions"]


class RecordedCompanions(Companions):
    """Keeps the companion layers that were read, so that a layer can be copied with all that it needs."""

    layers: tuple[CompanionLayer, ...] = ()

    def find_layer(self, suffix: str, annotations: Mapping[str, str], max_size: int) -> tuple[Descriptor, bytes]:
        """Find a layer and keep it; see `Companions.find_layer`."""
        descriptor, data = super().find_layer(suffix, annotations, max_size)
        self.layers += (CompanionLayer(suffix, descriptor, data),)
        return descriptor, data


def write_companions(
    store: ImageStore, destination: Reference, layers: Sequence[CompanionLayer], platform: Platform
) -> None:
    """Write the images of these layers beside `destination`, one per suffix, for one platform.

    A layer that occurs twice is written once. Raises BuildError.
    """
    for suffix in dict.fromkeys(layer.suffix for layer in layers):
        chosen = {layer.descriptor.digest: layer for layer in layers if layer.suffix == suffix}
        diff_ids = []
        for layer in chosen.values():
            if not store.has_blob(layer.descriptor.digest, layer.descriptor.size):
                store.put_blob(layer.descriptor, io.BytesIO(layer.data))
            with closing(PlainLayer(io.BytesIO(layer.data))) as plain:
                diff_ids.append(plain.finish())
        descriptors = [layer.descriptor for layer in chosen.values()]
        write_image(store, companion_reference(destination, suffix), image_config(platform, diff_ids), descriptors, {})
