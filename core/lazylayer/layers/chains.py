"""Work for a whole image when its layers are mounted one by one, as containerd mounts them.

The first mount has all other layers of its image opened, so that their own mounts find them ready, and then
lets policies prefetch the image. All this goes on behind the mount's back.

The lock is `Neighbours._lock`; nothing is opened while it is held.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from functools import partial

from lazylayer.api.labels import LayerSource
from lazylayer.api.oci import Digest, Reference, ResolvedImage
from lazylayer.api.settings import Settings
from lazylayer.concurrency import run_in_background
from lazylayer.layers.image import open_image, resolve_image
from lazylayer.layers.store import LayerStore
from lazylayer.logger import logger
from lazylayer.plugin.hooks import Hooks

__all__ = ["Neighbours"]

_AT_ONCE = 8
"""Images of one host to look ahead at, at the same time. A slow registry holds up none but its own."""
_WHOLE_CHAIN = 50
"""A chain of more layers than this may be cut: labels hold at most 4096 bytes."""


class Neighbours:
    """An opener of the neighbours of layers. Safe to use from any thread."""

    def __init__(self, settings: Settings, hooks: Hooks, layers: LayerStore) -> None:
        self._settings = settings
        self._hooks = hooks
        self._layers = layers
        self._lock = threading.Lock()
        self._at_once: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(_AT_ONCE))
        self._busy_with: set[Reference] = set()

    def open(self, source: LayerSource, labels: Mapping[str, str], *, prefetch: bool) -> None:
        """Begin to open the neighbours that a layer's labels name, and return at once.

        With `prefetch`, the image is prefetched too, unless it was since its uppermost layer was opened.
        """
        missing = [each for each in source.neighbours if not self._layers.knows(source.reference, each)]
        uppermost = (source.neighbours or (source.digest,))[-1]
        prefetch = prefetch and self._layers.prefetcher.wants(source.reference, uppermost)
        with self._lock:
            if source.reference in self._busy_with or not (missing or prefetch):
                return
            self._busy_with.add(source.reference)
        arguments = (source, missing, dict(labels), prefetch)
        threading.Thread(target=self._run, args=arguments, name="lazylayer-neighbours", daemon=True).start()

    def _run(self, source: LayerSource, missing: list[Digest], labels: Mapping[str, str], prefetch: bool) -> None:
        reference = source.reference
        with self._lock:
            slots = self._at_once[reference.host]
        try:
            with slots:
                resolved = self._resolve(reference)
                self._open(resolved, missing, labels)
            if prefetch and _names(source, resolved):  # policies take their time: other images do not wait for them
                with closing(open_image(self._layers, resolved)) as image:
                    self._layers.prefetcher.image(image, labels)
        except Exception as error:  # noqa: BLE001 - mounts do without
            logger.debug("{reference}: layers were not opened ahead: {error!r}", reference=str(reference), error=error)
        finally:
            with self._lock:
                self._busy_with.discard(reference)

    def _resolve(self, reference: Reference) -> ResolvedImage:
        """Resolve an image within `resolve.timeout`, so that a dripping registry holds a slot no longer."""
        resolve = partial(resolve_image, self._hooks, self._settings, reference)
        return run_in_background(resolve, "lazylayer-resolve").result(self._settings.resolve.timeout)

    def _open(self, resolved: ResolvedImage, digests: list[Digest], labels: Mapping[str, str]) -> None:
        """Open layers, so that their own mounts find them ready.

        The manifest promises their table of contents here; the labels of their own mount do so again, and are
        compared then.
        """
        wanted = [each for each in resolved.manifest.layers if each.digest in digests]
        with closing(open_image(self._layers, resolved, wanted)) as image:
            for layer in image.layers:
                self._layers.prefetcher.layer(layer, labels)


def _names(source: LayerSource, resolved: ResolvedImage) -> bool:
    """Return True if labels are those of this image, rather than of one that its tag named before."""
    layers = [layer.digest for layer in resolved.manifest.layers]
    chain = [source.digest, *source.neighbours]
    return set(chain) <= set(layers) and (chain[-1] == layers[-1] or len(chain) > _WHOLE_CHAIN)
