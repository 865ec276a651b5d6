"""Open layers and images, lend them, and merge their trees.

This room may import `fetching`, `plugin` and `api`.
Begin reading in `store`, at `LayerStore`. Programs that are plugins may import the names below from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazylayer.faces import lazy_face

if TYPE_CHECKING:
    from lazylayer.layers.companions import Companions, annotate_layers, companion_reference
    from lazylayer.layers.image import Image, open_image, resolve_image
    from lazylayer.layers.merged import MergedLayers
    from lazylayer.layers.store import LayerStore

__all__ = ["Companions", "Image", "LayerStore", "MergedLayers", "annotate_layers", "companion_reference", "open_image"]
__all__ += ["resolve_image"]

_MODULES = {"Image": "image", "LayerStore": "store", "MergedLayers": "merged", "open_image": "image"}
_MODULES |= dict.fromkeys(("Companions", "annotate_layers", "companion_reference"), "companions")
_MODULES |= {"resolve_image": "image"}

__getattr__ = lazy_face(__name__, _MODULES)
