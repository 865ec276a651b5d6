"""An image: its manifest, its layers opened concurrently, and the tree they make together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from lazylayer.api.oci import Descriptor, Platform, Reference, ResolvedImage
from lazylayer.api.opened import OpenedFile, OpenedLayer
from lazylayer.api.settings import Settings
from lazylayer.api.tree import Entry
from lazylayer.concurrency import run_together
from lazylayer.layers.layer import Layer
from lazylayer.layers.merged import MergedLayers
from lazylayer.layers.overlay import follow, merge_trees, names_in
from lazylayer.layers.store import LayerStore
from lazylayer.plugin.hooks import Hooks

__all__ = ["Image", "ImageFile", "open_image", "resolve_image"]

CONCURRENT_LAYERS = 32


class ImageFile(NamedTuple):
    """A file, or whatever else a path leads to, in one of an image's layers; `path` has no link in it."""

    layer: OpenedLayer
    entry: Entry
    path: bytes

    def read(self, offset: int, size: int) -> bytes:
        """The file's verified bytes; see `Layer.read`."""
        return self.layer.read(self.entry, offset, size)


class Image:
    """An image with some or all of its layers open, lowest first. Close it to give them back."""

    def __init__(self, store: LayerStore, resolved: ResolvedImage, layers: tuple[Layer, ...]) -> None:
        self.resolved = resolved
        self.layers = layers
        self._store = store
        self._closed = False

    def merged(self) -> MergedLayers:
        """The layers on top of each other, as a container would see them."""
        return MergedLayers(self.resolved.reference, self.layers, merge_trees([layer.tree for layer in self.layers]))

    def find(self, path: bytes) -> ImageFile | None:
        """What a container of the image would find at `path`, symlinks followed, or None."""
        found = follow([layer.tree for layer in self.layers], path)
        return ImageFile(self.layers[found.tree], found.entry, found.path) if found is not None else None

    def names(self, path: bytes) -> list[bytes]:
        """The names that a container of the image would see in the directory at `path`; none where no directory is."""
        return names_in([layer.tree for layer in self.layers], path)

    def file(self, layer: OpenedLayer, path: bytes, entry: Entry) -> ImageFile:
        """Return the file that `entry` of one of the layers is."""
        return ImageFile(layer, entry, path)

    def fetch(self, files: Iterable[OpenedFile]) -> None:
        """Fetches what of these files is not here, all layers at the same time, each with few requests.

        What somebody else fetches at this moment is not waited for. Raises the first LayerError or
        ResolveError, by order of files, when all other layers have fetched theirs.
        """
        by_layer: dict[int, tuple[OpenedLayer, list[Entry]]] = {}
        for file in files:
            by_layer.setdefault(id(file.layer), (file.layer, []))[1].append(file.entry)
        calls = [partial(layer.fetch, entries) for layer, entries in by_layer.values()]
        for fetch in run_together(calls, "lazylayer-files", CONCURRENT_LAYERS):
            fetch.result()

    def close(self) -> None:
        """Gives the layers back to the store, which closes them when nobody uses them."""
        if not self._closed:
            self._closed = True
            for layer in self.layers:
                self._store.release(layer)


def resolve_image(hooks: Hooks, settings: Settings, reference: Reference) -> ResolvedImage:
    """Finds the image for the platform that the settings name, by default this machine's."""
    wanted = settings.resolve.platform
    return hooks.resolve_image(reference, Platform.parse(wanted) if wanted else Platform.of_this_machine())


def open_image(
    store: LayerStore, resolved: ResolvedImage, settings: Settings, layers: Sequence[Descriptor] | None = None
) -> Image:
    """Opens `layers` of a resolved image, by default all of them, at the same time.

    Raises the first error, by order of layers; the layers that did open are given back.
    """
    borrow = partial(store.borrow, resolved.reference, verify=settings.fetch.verify, timeout=settings.resolve.timeout)
    calls = [partial(borrow, each) for each in (resolved.manifest.layers if layers is None else layers)]
    futures = run_together(calls, "lazylayer-image", CONCURRENT_LAYERS)
    failures = [error for future in futures if (error := future.exception()) is not None]
    opened = [future.result() for future in futures if future.exception() is None]
    if failures:
        for layer in opened:
            store.release(layer)
        raise failures[0]
    return Image(store, resolved, tuple(opened))
