"""The layers of an image as one tree."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lazylayer.api.mounting import merge_directories
from lazylayer.api.oci import Reference
from lazylayer.api.tree import Entry, Tree
from lazylayer.layers.layer import Layer

__all__ = ["MergedLayers"]


class MergedLayers:
    """Several layers shown as one tree, whiteouts applied. A `MountableTree`."""

    def __init__(self, reference: Reference, layers: tuple[Layer, ...], tree: Tree) -> None:
        self.layers = layers
        self.tree = tree
        self.source = str(reference).replace(",", "_").replace(" ", "_")
        self.identity = "; ".join(["merged", *(layer.identity for layer in layers)])
        self.virtual = merge_directories(layer.virtual for layer in reversed(layers))

    @property
    def complete(self) -> bool:
        """True if all layers are complete."""
        return all(layer.complete for layer in self.layers)

    def when_complete(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once, when each layer is complete, or was; see `MountableTree.when_complete`."""
        missing = len(self.layers)
        lock = threading.Lock()

        def completed() -> None:
            nonlocal missing
            with lock:
                missing -= 1
                last = missing == 0
            if last:
                callback()

        withdrawals = [layer.when_complete(completed) for layer in self.layers]
        if not self.layers:
            callback()

        def withdraw() -> None:
            for each in withdrawals:
                each()

        return withdraw

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Return the verified bytes of a file; see `Layer.read`."""
        return self.layers[entry.layer].read(entry, offset, size)
