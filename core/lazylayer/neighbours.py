"""What is done for a whole image when its layers are mounted one by one, as containerd has it.

The first mount has all other layers of its image opened, so that their own mounts find them ready,
and then lets policies prefetch the image. All this goes on behind the mount's back.

The lock is `Neighbours._lock`; nothing is opened while it is held.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from loguru import logger

from lazylayer.errors import LazylayerError
from lazylayer.hooks import Hooks
from lazylayer.image import open_image, resolve_image
from lazylayer.labels import LayerSource
from lazylayer.layerstore import LayerStore
from lazylayer.oci import Digest, Reference, ResolvedImage
from lazylayer.settings import Settings

__all__ = ["Neighbours"]

AT_ONCE = 8
_REMEMBERED = 1000


class Neighbours:
    """Opens the neighbours of layers. Safe to use from any thread."""

    def __init__(self, settings: Settings, hooks: Hooks, layers: LayerStore) -> None:
        self._settings = settings
        self._hooks = hooks
        self._layers = layers
        self._lock = threading.Lock()
        self._at_once = threading.BoundedSemaphore(AT_ONCE)
        self._busy_with: set[Reference] = set()
        self._prefetched: dict[tuple[Reference, Digest], None] = {}

    def open(self, source: LayerSource, labels: Mapping[str, str], *, prefetch: bool) -> None:
        """Begins to open the neighbours that a layer's labels name; returns at once.

        With `prefetch`, the image is prefetched too, if it was not.
        """
        missing = [each for each in source.neighbours if not self._layers.knows(source.reference, each)]
        uppermost = (source.neighbours or (source.digest,))[-1]
        with self._lock:
            prefetch = prefetch and self._settings.prefetch.enabled
            prefetch = prefetch and (source.reference, uppermost) not in self._prefetched
            if source.reference in self._busy_with or not (missing or prefetch):
                return
            self._busy_with.add(source.reference)
            if prefetch:
                self._prefetched[source.reference, uppermost] = None
                while len(self._prefetched) > _REMEMBERED:
                    del self._prefetched[next(iter(self._prefetched))]
        arguments = (source, missing, dict(labels), prefetch)
        threading.Thread(target=self._run, args=arguments, name="lazylayer-neighbours", daemon=True).start()

    def _run(self, source: LayerSource, missing: list[Digest], labels: Mapping[str, str], prefetch: bool) -> None:
        reference = source.reference
        try:
            with self._at_once:
                resolved = resolve_image(self._hooks, self._settings, reference)
                self._open(resolved, missing, labels)
                if prefetch and source.digest in [layer.digest for layer in resolved.manifest.layers]:
                    self._prefetch(resolved, labels)
        except LazylayerError as error:
            logger.debug("{reference}: layers were not opened ahead: {error}", reference=str(reference), error=error)
        finally:
            with self._lock:
                self._busy_with.discard(reference)

    def _open(self, resolved: ResolvedImage, digests: list[Digest], labels: Mapping[str, str]) -> None:
        """Opens layers, so that their own mounts find them ready.

        Their table of contents is promised by the manifest here, and again by the labels of their
        own mount, which are compared then.
        """
        wanted = [each for each in resolved.manifest.layers if each.digest in digests]
        image = open_image(self._layers, resolved, self._settings, wanted)
        for layer in image.layers:
            self._layers.start_fetching(layer, labels)
        image.close()

    def _prefetch(self, resolved: ResolvedImage, labels: Mapping[str, str]) -> None:
        image = open_image(self._layers, resolved, self._settings)
        try:
            self._hooks.prefetch_image(image, labels)
        finally:
            image.close()
