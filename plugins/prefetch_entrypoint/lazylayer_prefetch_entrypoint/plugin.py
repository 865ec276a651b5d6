"""The plugin: its options, and when it does what."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

import msgspec

from lazylayer import hookimpl
from lazylayer.api.units import Size
from lazylayer_prefetch_entrypoint.following import ProgramLocality

if TYPE_CHECKING:
    from lazylayer.api.opened import OpenedImage, OpenedLayer
    from lazylayer.api.tree import Entry

__all__ = ["NAME", "Options", "PrefetchEntrypoint"]

NAME = "prefetch_entrypoint"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.prefetch_entrypoint]`."""

    max_bytes: Size = 64 * 1024 * 1024
    """The most bytes of files, inflated, to fetch for one image; larger files are left out."""


class PrefetchEntrypoint:
    """The plugin; it keeps its options, and which open layer has which locality. The lock guards that."""

    def __init__(self) -> None:
        self._options = Options()
        self._lock = threading.Lock()
        # The layer keeps its locality, and this keeps neither: a locality leads to an image, and so to its layers.
        self._localities: WeakKeyDictionary[OpenedLayer, ref[ProgramLocality]] = WeakKeyDictionary()

    @hookimpl
    def lazylayer_configure(self, options: Options) -> None:
        """Take `[plugin.prefetch_entrypoint]`."""
        self._options = options

    @hookimpl
    def lazylayer_daemon_started(self) -> None:
        """Import the modules that the first image needs."""
        import lazylayer_prefetch_entrypoint.prefetch  # noqa: F401

    @hookimpl
    def lazylayer_layer_opened(self, layer: OpenedLayer) -> ProgramLocality:
        """Say which files of the layer are programs."""
        locality = ProgramLocality()
        with self._lock:
            self._localities[layer] = ref(locality)
        return locality

    @hookimpl
    def lazylayer_prefetch_image(self, image: OpenedImage) -> None:
        """Follow the image's programs, and fetch that of the image unless a landmark says what to prefetch."""
        if not self._options.max_bytes:
            return
        from lazylayer_prefetch_entrypoint.prefetch import Prefetch

        prefetch = Prefetch(image, self._options.max_bytes)

        def follow(layer: OpenedLayer, path: bytes, entry: Entry) -> None:
            prefetch.follow(image.file(layer, path, entry))

        for layer in image.layers:
            with self._lock:
                known = self._localities.get(layer)
            locality = known() if known is not None else None
            if locality is not None:
                locality.follow = partial(follow, layer)
        if not any(layer.tree.prefetch_landmark is not None for layer in image.layers):
            prefetch.run()
