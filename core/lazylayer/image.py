"""An image: its manifest, its layers opened concurrently, and the tree they make together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from lazylayer.hooks import Hooks
from lazylayer.layer import Layer, MergedLayers
from lazylayer.layerstore import LayerStore
from lazylayer.oci import Descriptor, Platform, Reference, ResolvedImage
from lazylayer.overlaid import follow
from lazylayer.settings import Settings
from lazylayer.tree import Entry, merge_trees

__all__ = ["Image", "ImageFile", "open_image", "resolve_image"]

CONCURRENT_LAYERS = 32


class ImageFile(NamedTuple):
    """A file, or whatever else a path leads to, in one of an image's layers."""

    layer: Layer
    entry: Entry

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
        return ImageFile(self.layers[found.tree], found.entry) if found is not None else None

    def fetch(self, files: Iterable[ImageFile]) -> None:
        """Fetches what of these files is not here, all layers at the same time, each with few requests.

        What somebody else fetches at this moment is not waited for. Raises LayerError or ResolveError.
        """
        by_layer: dict[int, list[Entry]] = {}
        for file in files:
            by_layer.setdefault(self.layers.index(file.layer), []).append(file.entry)
        if not by_layer:
            return
        with ThreadPoolExecutor(len(by_layer), "lazylayer-files") as threads:
            fetches = [threads.submit(self.layers[number].fetch, entries) for number, entries in by_layer.items()]
        for fetch in fetches:
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
    wanted = list(resolved.manifest.layers if layers is None else layers)

    def borrow(descriptor: Descriptor) -> Layer:
        return store.borrow(
            resolved.reference, descriptor, verify=settings.fetch.verify, timeout=settings.resolve.timeout
        )

    if not wanted:
        return Image(store, resolved, ())
    opened: list[Layer] = []
    with ThreadPoolExecutor(min(len(wanted), CONCURRENT_LAYERS), "lazylayer-image") as threads:
        futures = [threads.submit(borrow, descriptor) for descriptor in wanted]
    failures = [error for future in futures if (error := future.exception()) is not None]
    opened = [future.result() for future in futures if future.exception() is None]
    if failures:
        for layer in opened:
            store.release(layer)
        raise failures[0]
    return Image(store, resolved, tuple(opened))
