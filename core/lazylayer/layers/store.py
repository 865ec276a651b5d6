"""Opened layers, each once: who needs a layer borrows it here.

A layer is opened once per (reference, digest) however many ask at the same time. A failure is told
to all who waited and is forgotten, so that the next who asks tries again. Layers that nobody uses
are kept for a while, the least recently used leaving first.

The lock is `LayerStore._lock`; no layer is opened or closed while it is held.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

import msgspec

from lazylayer.api.cache import Cache
from lazylayer.api.events import StateEvent
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import Descriptor, Digest, Reference
from lazylayer.api.settings import Settings
from lazylayer.errors import LayerError, LazylayerError, UnavailableError
from lazylayer.fetching.blob import Blob
from lazylayer.fetching.chunkstore import ChunkStore
from lazylayer.fetching.scheduling import BackgroundWorkers, Scheduler, Turn
from lazylayer.layers.companions import Companions
from lazylayer.layers.layer import Layer
from lazylayer.plugin.hooks import Hooks

__all__ = ["LayerStore"]

_Key = tuple[str, Digest, bool]


class _Slot:
    __slots__ = ("future", "users")

    def __init__(self) -> None:
        self.future: Future[Layer] = Future()
        self.users = 0

    @property
    def layer(self) -> Layer | None:
        """The layer, if it was opened by now."""
        if not self.future.done() or self.future.exception() is not None:
            return None
        return self.future.result()


class LayerStore:
    """Opens layers, shares them, and lets them go. Safe to use from any thread."""

    def __init__(self, settings: Settings, hooks: Hooks) -> None:
        self._settings = settings
        self._hooks = hooks
        self._lock = threading.Lock()
        self._slots: OrderedDict[_Key, _Slot] = OrderedDict()
        self._closed = False
        self.scheduler = Scheduler(settings.background.silence, settings.background.starvation)
        self._background = BackgroundWorkers(self.scheduler, settings.background.concurrency)
        self._background_work: dict[int, _BackgroundFetch] = {}
        self._ranges: Cache = hooks.open_cache(settings.cache.ranges, "ranges")
        self.chunks = ChunkStore(hooks.open_cache(settings.cache.chunks, "chunks"))

    def borrow(self, reference: Reference, descriptor: Descriptor, *, verify: bool, timeout: float) -> Layer:
        """The layer that `descriptor` points at, opened if need be; give it back with `release`.

        Waits at most `timeout` seconds; an opening that takes longer goes on, for the next who asks.
        `verify` says whether a layer that promises no digest for its table of contents is refused.
        Raises ResolveError or LayerError; UnavailableError when the store was closed.
        """
        key = (str(reference), descriptor.digest, verify)
        with self._lock:
            if self._closed:
                raise UnavailableError(f"layer {descriptor.digest} is not opened any more: lazylayer is ending")
            slot = self._slots.get(key)
            if mine := slot is None:
                slot = self._slots[key] = _Slot()
            assert slot is not None
            slot.users += 1
            self._slots.move_to_end(key)
        if mine:
            name = f"lazylayer-open-{descriptor.digest[7:15]}"
            arguments = (key, slot, reference, descriptor, verify)
            threading.Thread(target=self._open, args=arguments, name=name, daemon=True).start()
        try:
            return slot.future.result(timeout)
        except FutureTimeoutError:
            self._give_back(slot)
            raise UnavailableError(f"layer {descriptor.digest} was not resolved within {timeout:g} s") from None
        except LazylayerError:
            self._give_back(slot)
            raise

    def knows(self, reference: Reference, digest: Digest) -> bool:
        """Whether the layer is open or being opened."""
        with self._lock:
            return any((str(reference), digest, verify) in self._slots for verify in (True, False))

    def release(self, layer: Layer) -> None:
        """Gives a layer back. Unused layers stay open while there is room for them."""
        with self._lock:
            slots = [slot for slot in self._slots.values() if slot.layer is layer]
        for slot in slots:
            self._give_back(slot)

    def start_fetching(self, layer: Layer, labels: Mapping[str, str]) -> None:
        """Prefetches the layer, then leaves the rest to the background; both behind the caller's back."""

        def fetch() -> None:
            self.prefetch(layer, labels)
            self.fetch_in_background(layer)

        threading.Thread(target=fetch, name="lazylayer-prefetch", daemon=True).start()

    def prefetch(self, layer: Layer, labels: Mapping[str, str]) -> None:
        """Plans the layer's prefetch and carries it out; once per layer. Returns when it is done."""
        if self._settings.prefetch.enabled:
            layer.prefetch(lambda: self._hooks.plan_prefetch(layer, labels))

    def fetch_in_background(self, layer: Layer) -> None:
        """Lets the rest of the layer be fetched when nothing else is to be done; once per layer."""
        with self._lock:
            if not self._settings.background.enabled or id(layer) in self._background_work:
                return
            work = _BackgroundFetch(layer, self._settings.background.request_size)
            self._background_work[id(layer)] = work
        self._background.add(work)

    def close(self) -> None:
        """Stops background work and closes all layers and caches."""
        self.scheduler.close()
        self._background.close()
        with self._lock:
            self._closed = True
            layers = [slot.layer for slot in self._slots.values() if slot.layer is not None]
            self._slots.clear()
        for layer in layers:
            layer.close()
        self.chunks.close()
        self._ranges.close()

    # --- opening -----------------------------------------------------------------------------------

    def _open(self, key: _Key, slot: _Slot, reference: Reference, descriptor: Descriptor, verify: bool) -> None:
        try:
            with self.scheduler.foreground():
                layer = self._open_layer(reference, descriptor, verify)
        except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it was
            with self._lock:
                if self._slots.get(key) is slot:
                    del self._slots[key]
            failure = error if isinstance(error, LazylayerError) else LayerError(f"{descriptor.digest}: {error!r}")
            slot.future.set_exception(failure)
            self._hooks.report_state(StateEvent("failed", key[0], error=str(failure)))
            return
        with self._lock:
            slot.future.set_result(layer)
            too_late = self._closed
        if too_late:
            layer.close()
            return
        self._hooks.report_state(StateEvent("resolved", key[0], (layer.state(),)))
        self._evict()

    def _open_layer(self, reference: Reference, descriptor: Descriptor, verify: bool) -> Layer:
        blob = Blob(
            lambda: self._hooks.resolve_blob(reference, descriptor), descriptor.digest, descriptor.size, self._ranges
        )
        try:
            contents = self._open_contents(reference, blob, descriptor, verify)
            layer = Layer(
                reference,
                msgspec.structs.replace(descriptor, size=blob.size),
                blob,
                contents,
                self.chunks,
                self.scheduler,
                self._settings.fetch,
                self._hooks.report_state,
            )
        except BaseException:
            blob.close()
            raise
        layer.virtual = self._hooks.add_virtual_entries(layer)
        return layer

    def _open_contents(self, reference: Reference, blob: Blob, descriptor: Descriptor, verify: bool) -> LayerContents:
        companions = Companions(self._hooks, reference, descriptor.digest, self._ranges)
        try:
            return self._hooks.open_layer(blob, descriptor, verify, companions)
        except LayerError as error:
            # All that was read is suspect: a cache has damaged it, or a mirror serves something else.
            if not any([blob.forget_ranges(error), companions.forget_cached()]):
                raise
        return self._hooks.open_layer(blob, descriptor, verify, companions)

    # --- letting go --------------------------------------------------------------------------------

    def _give_back(self, slot: _Slot) -> None:
        with self._lock:
            slot.users -= 1
        self._evict()

    def _evict(self) -> None:
        with self._lock:
            unused = [key for key, slot in self._slots.items() if slot.users <= 0 and slot.future.done()]
            surplus = unused[: max(len(unused) - self._settings.resolve.keep, 0)]
            slots = [self._slots.pop(key) for key in surplus]
            layers = [slot.layer for slot in slots if slot.layer is not None]
            works = [self._background_work.pop(id(layer), None) for layer in layers]
        for work in works:
            if work is not None:
                self._background.remove(work)
        for layer in layers:
            layer.close()


class _BackgroundFetch:
    """The background task of one layer."""

    def __init__(self, layer: Layer, request_size: int) -> None:
        self._layer = layer
        self._request_size = request_size

    def __call__(self, turn: Turn) -> bool:
        return self._layer.fetch_some(turn, self._request_size)
