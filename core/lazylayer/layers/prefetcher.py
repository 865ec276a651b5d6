"""Fetch ahead: what policies plan for a layer, what they find in an image, and then the rest of each layer.

The lock is `Prefetcher._lock`; no policy is asked, and nothing fetched, while it is held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple
from weakref import WeakValueDictionary

from lazylayer.api.oci import Digest, Reference
from lazylayer.api.opened import OpenedImage, OpenedLayer
from lazylayer.api.settings import Settings
from lazylayer.concurrency import BackgroundWorkers
from lazylayer.errors import LazylayerError
from lazylayer.fetching.scheduling import Scheduler, Turn
from lazylayer.layers.layer import Layer
from lazylayer.logger import logger
from lazylayer.plugin.hooks import Hooks

__all__ = ["Prefetcher"]


class Prefetcher:
    """A fetcher of layers and images before they are read. Safe to use from any thread.

    Nothing here keeps a layer that was closed, or fetches any more of it.
    """

    def __init__(self, settings: Settings, hooks: Hooks, scheduler: Scheduler) -> None:
        self._settings = settings
        self._hooks = hooks
        self._lock = threading.Lock()
        self._background = BackgroundWorkers(scheduler.wait_turn, settings.background.concurrency)
        self._layers: dict[Layer, _Work] = {}
        self._images: WeakValueDictionary[tuple[Reference, Digest], OpenedLayer] = WeakValueDictionary()
        """The layers of images that were prefetched, as long as they are open."""

    def layer(self, layer: Layer, labels: Mapping[str, str]) -> None:
        """Fetch what a policy plans for a layer, then the rest in the background; once in the life of the layer.

        Returns at once. Errors are reported as the layer's.
        """
        rest = partial(layer.fetch_some, request_size=self._settings.background.request_size)
        work = _Work(layer, threading.Event(), rest)
        with self._lock:
            if layer in self._layers or layer.closed:
                return
            self._layers[layer] = work
        if not self._settings.prefetch.enabled:
            work.planned.set()
        threading.Thread(target=self._fetch, args=(work, labels), name="lazylayer-prefetch", daemon=True).start()

    def image(self, image: OpenedImage, labels: Mapping[str, str]) -> None:
        """Let policies fetch what they find in an image; once while the image's layers are open.

        Returns when they have done so. Errors are logged.
        """
        reference = image.resolved.reference
        with self._lock:
            if not self._settings.prefetch.enabled or not image.layers:
                return
            if self._fetched(reference, image.layers[-1].digest):
                return
            self._images.update({(reference, each.digest): each for each in image.layers})
        self._hooks.prefetch_image(image, labels)

    def wants(self, reference: Reference, uppermost: Digest) -> bool:
        """Return True if `image` would do anything for an image whose uppermost layer is this one."""
        with self._lock:
            return self._settings.prefetch.enabled and not self._fetched(reference, uppermost)

    def wait(self, layer: Layer, timeout: float) -> bool:
        """Wait, at most `timeout` seconds, for the planned prefetch of a layer; return False if it goes on."""
        work = self._layers.get(layer)
        return work is None or work.planned.wait(timeout)

    def forget(self, layer: Layer) -> None:
        """Let go of a layer that was closed."""
        with self._lock:
            work = self._layers.pop(layer, None)
        if work is not None:
            self._background.remove(work.rest)

    def close(self) -> None:
        """Stop fetching in the background, and wait for what is under way. The scheduler must be closed before."""
        self._background.close()

    def _fetched(self, reference: Reference, digest: Digest) -> bool:
        layer = self._images.get((reference, digest))
        return layer is not None and not layer.closed

    def _fetch(self, work: _Work, labels: Mapping[str, str]) -> None:
        if not work.planned.is_set():
            self._fetch_planned(work.layer, labels)
            work.planned.set()
        with self._lock:
            if self._settings.background.enabled and self._layers.get(work.layer) is work:
                self._background.add(work.rest)

    def _fetch_planned(self, layer: Layer, labels: Mapping[str, str]) -> None:
        try:
            plan = self._hooks.plan_prefetch(layer, labels)
            for byte_range in plan.ranges if plan is not None else ():
                if layer.closed:
                    return
                layer.prefetch(byte_range)
            if plan is not None and plan.ranges:
                logger.debug("prefetched {digest}: {reason}", digest=layer.digest, reason=plan.reason)
                layer.tell("prefetched")
        except LazylayerError as error:
            layer.fail(f"prefetch: {error}")


class _Work(NamedTuple):
    """The fetching ahead of one layer: `planned` is set when the planned prefetch is over, then comes `rest`."""

    layer: Layer
    planned: threading.Event
    rest: Callable[[Turn], bool]
