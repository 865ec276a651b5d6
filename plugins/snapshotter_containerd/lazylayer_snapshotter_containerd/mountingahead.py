"""Open and mount all layers of an image that is being pulled, ahead of containerd's calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

from lazylayer.api.labels import layer_source
from lazylayer.api.oci import Descriptor, ResolvedImage
from lazylayer.errors import LazylayerError
from lazylayer.layers import Image, LayerStore
from lazylayer_snapshotter_containerd.ahead import LayerAhead, WantedLayer
from lazylayer_snapshotter_containerd.background import run_all, run_in_background
from lazylayer_snapshotter_containerd.labels import layer_source_labels
from lazylayer_snapshotter_containerd.logger import logger
from lazylayer_snapshotter_containerd.snapshotter import Snapshotter

__all__ = ["ImageAhead", "WantedSnapshot"]


class WantedSnapshot(NamedTuple):
    """A layer of the image, the chain ID and labels of its snapshot, and whether the namespace has that."""

    layer: Descriptor
    chain: str
    labels: Mapping[str, str]
    exists: bool


class ImageAhead:
    """The layers of one image while it is pulled. Close it at the end of the pull.

    :param scope: the name that containerd has for the snapshotter.
    """

    def __init__(self, layers: LayerStore, snapshotter: Snapshotter, resolved: ResolvedImage, scope: str) -> None:
        self._layers = layers
        self._snapshotter = snapshotter
        self._image = resolved
        self._scope = scope
        self._ahead: list[LayerAhead] = []
        self._opened = threading.Event()
        self._opening: dict[str, Future[Any]] = {}

    def begin(self, wanted: Sequence[WantedSnapshot], fetch: Callable[[Descriptor], object]) -> None:
        """Begin to open the layers, and to mount those that are not mounted yet, and return at once.

        :param wanted: the layers, lowest first, but for those that are unpacked.
        :param fetch: called for each layer that cannot be mounted: it will be unpacked.
        """
        missing = [
            each
            for each in wanted
            if not each.exists and not self._snapshotter.is_mounted_as(self._scope, each.chain, each.labels)
        ]
        if not missing:
            return
        run_in_background(partial(self._open, [each.layer for each in wanted], fetch), "lazylayer-pull")
        mounts = [
            WantedLayer(each.chain, _without_neighbours(each.labels), partial(self._wait_opened, each.layer.digest))
            for each in missing
        ]
        try:
            self._ahead = self._snapshotter.ahead.mount(self._scope, mounts)
        except (LazylayerError, OSError) as error:
            logger.warning("layers are not mounted ahead: {error}", error=error)

    def is_committed(self, chain: str) -> bool:
        """Return True if containerd has taken the layer of this chain ID from those that were mounted ahead."""
        return any(each.committed for each in self._ahead if each.wanted.target == chain)

    def close(self) -> None:
        """Give back the layers, and remove mounts that containerd did not ask for."""
        self._snapshotter.ahead.release(self._ahead)

    def _open(self, layers: Sequence[Descriptor], fetch: Callable[[Descriptor], object]) -> None:
        """Open layers; let policies prefetch the image if that is all of it; have the others fetched."""
        calls = [partial(self._layers.lend, self._image.reference, layer) for layer in layers]
        futures = run_all(calls, "lazylayer-pull")
        self._opening = {layer.digest: future for layer, future in zip(layers, futures, strict=True)}
        leases = [future.result() for future in futures if future.exception() is None]
        with closing(Image(self._image, leases)) as image:
            if len(leases) == len(self._image.manifest.layers):
                prefetch = partial(self._layers.prefetcher.image, image, {})
                prefetching = run_in_background(prefetch, "lazylayer-image")
            self._opened.set()
            for layer, future in zip(layers, futures, strict=True):
                if future.exception() is not None:
                    fetch(layer)
            for each in self._ahead:
                each.failure()
            if len(leases) == len(self._image.manifest.layers):
                prefetching.result()

    def _wait_opened(self, digest: str) -> None:
        self._opened.wait()
        error = self._opening[digest].exception()
        if error is not None:
            raise error


def _without_neighbours(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of a layer without its neighbours, which are being opened already."""
    source = layer_source(labels)
    return {**labels, **layer_source_labels(source.reference, source.digest, [source.digest])}
