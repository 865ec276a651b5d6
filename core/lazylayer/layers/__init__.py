"""Open layers and images, lend them, and merge their trees.

This room may import `fetching`, `plugin` and `api`.
Begin reading in `store`, at `LayerStore`. Programs that are plugins may import the names below from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazylayer.layers.companions import Companions, companion_reference
    from lazylayer.layers.image import Image, open_image, resolve_image
    from lazylayer.layers.merged import MergedLayers
    from lazylayer.layers.store import LayerStore

__all__ = [
    "Companions",
    "Image",
    "LayerStore",
    "MergedLayers",
    "companion_reference",
    "open_image",
    "resolve_image",
]

_MODULES = {"Image": "image", "LayerStore": "store", "MergedLayers": "merged", "open_image": "image"}
_MODULES |= {"Companions": "companions", "companion_reference": "companions", "resolve_image": "image"}


def __getattr__(name: str) -> object:
    """Import a name when it is first used, so that a command imports nothing that it does not need."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
