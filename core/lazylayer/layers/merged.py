"""The layers of an image as one tree."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lazylayer.api.mounting import VirtualDirectory
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
        self.virtual = _union([layer.virtual for layer in layers])

    @property
    def complete(self) -> bool:
        """Whether all layers are complete."""
        return all(layer.complete for layer in self.layers)

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """The verified bytes of a file; see `Layer.read`."""
        return self.layers[entry.layer].read(entry, offset, size)


def _union(all_virtual: list[Mapping[bytes, VirtualDirectory]]) -> dict[bytes, VirtualDirectory]:
    """Directories of the same name become one that holds the files of all."""
    union: dict[bytes, VirtualDirectory] = {}
    for virtual in all_virtual:
        for name, directory in virtual.items():
            known = union.get(name)
            files = {**known.files, **directory.files} if known is not None else directory.files
            union[name] = msgspec.structs.replace(directory, files=files)
    return union
