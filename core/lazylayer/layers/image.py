"""An image: its manifest, its layers opened concurrently, and the tree they make together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from lazylayer.api.oci import Descriptor, Platform, Reference, ResolvedImage
from lazylayer.api.opened import OpenedFile, OpenedLayer
from lazylayer.api.settings import Settings
from lazylayer.api.tree import Entry
from lazylayer.concurrency import run_concurrently
from lazylayer.layers.merged import MergedLayers
from lazylayer.layers.overlay import follow, merge_trees, names_in
from lazylayer.layers.store import LayerStore, Lease
from lazylayer.plugin.hooks import Hooks

__all__ = ["Image", "ImageFile", "open_image", "resolve_image"]

_CONCURRENT_LAYERS = 32


class ImageFile(NamedTuple):
    """A file of an opened image: its layer, its entry there, and its path without symlinks. An `OpenedFile`."""

    layer: OpenedLayer
    entry: Entry
    path: bytes

    def read(self, offset: int, size: int) -> bytes:
        """Return the file's verified bytes; see `Layer.read`."""
        return self.layer.read(self.entry, offset, size)


class Image:
    """An image with some or all of its layers open, lowest first, until it is closed. An `OpenedImage`."""

    def __init__(self, resolved: ResolvedImage, leases: Sequence[Lease]) -> None:
        self.resolved = resolved
        self.layers = tuple(lease.layer for lease in leases)
        self.leases = tuple(leases)
        """The uses of the layers, which `close` ends."""

    def merged(self) -> MergedLayers:
        """Return the layers on top of each other, as a container would see them."""
        return MergedLayers(self.resolved.reference, self.layers, merge_trees([layer.tree for layer in self.layers]))

    def find(self, path: bytes) -> ImageFile | None:
        """Return what a container would find at `path`, symlinks followed, or None."""
        found = follow([layer.tree for layer in self.layers], path)
        return ImageFile(self.layers[found.tree], found.entry, found.path) if found is not None else None

    def names(self, path: bytes) -> list[bytes]:
        """Return the names in the directory at `path`; none if `path` is not a directory."""
        return names_in([layer.tree for layer in self.layers], path)

    def file(self, layer: OpenedLayer, path: bytes, entry: Entry) -> ImageFile:
        """Return a file of one of the layers; see `OpenedImage.file`."""
        return ImageFile(layer, entry, path)

    def fetch(self, files: Iterable[OpenedFile]) -> None:
        """Fetch the missing chunks of these files; see `OpenedImage.fetch`."""
        by_layer: dict[int, tuple[OpenedLayer, list[Entry]]] = {}
        for file in files:
            by_layer.setdefault(id(file.layer), (file.layer, []))[1].append(file.entry)
        calls = [partial(layer.fetch, entries) for layer, entries in by_layer.values()]
        for fetch in run_concurrently(calls, "lazylayer-files", _CONCURRENT_LAYERS):
            fetch.result()

    def close(self) -> None:
        """Return the layers to their store. Closing again does nothing."""
        for lease in self.leases:
            lease.close()


def resolve_image(hooks: Hooks, settings: Settings, reference: Reference) -> ResolvedImage:
    """Find the image for the platform that the settings name, by default this machine's."""
    wanted = settings.resolve.platform
    return hooks.resolve_image(reference, Platform.parse(wanted) if wanted else Platform.of_this_machine())


def open_image(store: LayerStore, resolved: ResolvedImage, layers: Sequence[Descriptor] | None = None) -> Image:
    """Open `layers` of a resolved image concurrently, by default all of them.

    Raises the first error, by order of layers; the layers that did open are returned.
    """
    wanted = resolved.manifest.layers if layers is None else layers
    wanted = store.annotate(resolved.reference, wanted, resolved.manifest_bytes)
    calls = [partial(store.lend, resolved.reference, each) for each in wanted]
    futures = run_concurrently(calls, "lazylayer-image", _CONCURRENT_LAYERS)
    failures = [error for future in futures if (error := future.exception()) is not None]
    image = Image(resolved, [future.result() for future in futures if future.exception() is None])
    if failures:
        image.close()
        raise failures[0]
    return image
