"""Opened layers, each once, lent to all who need them.

A layer is opened once per (reference, digest) however many ask at the same time. A failure is told to all who
waited and is forgotten, so that the next call tries again. Unused layers stay open for a while, and the one
unused for longest is evicted first.

The lock is `LayerStore._lock`; no layer is opened or closed while it is held.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Self

import msgspec

from lazylayer.api.events import StateEvent
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import Descriptor, Digest, Reference
from lazylayer.api.settings import Settings
from lazylayer.api.text import one_line
from lazylayer.errors import LayerError, LazylayerError, ResolveError, UnavailableError
from lazylayer.fetching.blob import Blob
from lazylayer.fetching.chunkstore import ChunkStore
from lazylayer.fetching.fetcher import Fetcher
from lazylayer.fetching.opening import Opening
from lazylayer.fetching.scheduling import Scheduler
from lazylayer.layers.companions import Companions, annotate_layers
from lazylayer.layers.layer import Layer
from lazylayer.layers.prefetcher import Prefetcher
from lazylayer.plugin.hooks import Hooks

__all__ = ["LayerStore", "Lease"]


class _Key(msgspec.Struct, frozen=True):
    """The key of an opened layer. `verified`: its table of contents has the digest that an annotation promises."""

    reference: str
    digest: Digest
    verified: bool


class _Slot:
    __slots__ = ("future", "key", "users")

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.future: Future[Layer] = Future()
        self.users = 0


class Lease:
    """The use of a layer until it is closed; a context manager. Safe to close more than once, from any thread."""

    def __init__(self, layer: Layer, verified: bool, give_back: Callable[[], None]) -> None:
        self.layer = layer
        self.verified = verified
        """True if the layer's table of contents had to have the digest that an annotation promises."""
        self._give_back = [give_back]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Return the layer. Unused layers stay open until `resolve.keep` is exceeded."""
        try:
            give_back = self._give_back.pop()
        except IndexError:
            return
        give_back()


class LayerStore:
    """A store that opens layers, lends them, and lets them go. Safe to use from any thread."""

    def __init__(self, settings: Settings, hooks: Hooks) -> None:
        self._settings = settings
        self._hooks = hooks
        self._lock = threading.Lock()
        self._slots: dict[_Key, _Slot] = {}
        self._unused: OrderedDict[_Key, _Slot] = OrderedDict()
        """The slots whose layer is open and unused, the one unused for longest first."""
        self._closed = False
        self.scheduler = Scheduler(settings.background.silence, settings.background.starvation)
        self.prefetcher = Prefetcher(settings, hooks, self.scheduler)
        self._ranges = hooks.choose_cache(settings.cache.ranges).open_guarded_cache("ranges")
        self._chunks = ChunkStore(hooks.choose_cache(settings.cache.chunks).open_guarded_cache("chunks"))

    def lend(self, reference: Reference, descriptor: Descriptor, *, skip_verify: bool = False) -> Lease:
        """Return the use of the layer that `descriptor` points at, opened if need be.

        Waits `resolve.timeout` seconds at most; an opening that takes longer goes on, for the next call.
        `skip_verify` asks for a layer whose table of contents is not verified, where the settings allow that.
        Raises ResolveError or LayerError; UnavailableError when the store was closed.
        """
        fetch = self._settings.fetch
        verify = fetch.verify and not (skip_verify and fetch.allow_skip_verify)
        key = _Key(str(reference), descriptor.digest, verify)
        with self._lock:
            if self._closed:
                raise UnavailableError(f"layer {descriptor.digest}: not opened, since lazylayer is ending")
            slot = self._slots.get(key)
            if mine := slot is None:
                slot = self._slots[key] = _Slot(key)
            assert slot is not None
            slot.users += 1
            self._unused.pop(key, None)
        if mine:
            name = f"lazylayer-open-{descriptor.digest[7:15]}"
            threading.Thread(target=self._open, args=(slot, reference, descriptor), name=name, daemon=True).start()
        timeout = self._settings.resolve.timeout
        try:
            return Lease(slot.future.result(timeout), verify, partial(self._release, slot))
        except TimeoutError:
            self._release(slot)
            what = f"layer {descriptor.digest}: timed out after {timeout:g} s (resolve.timeout)"
            raise UnavailableError(what) from None
        except LazylayerError:
            self._release(slot)
            raise

    def annotate(self, reference: Reference, layers: Sequence[Descriptor], manifest: bytes = b"") -> list[Descriptor]:
        """Return layers as they are to be lent; see `annotate_layers`."""
        if not layers:
            return []
        opening = Opening(self._blob(reference, layers[0]), self._ranges)
        return annotate_layers(self._hooks, reference, layers, manifest, opening)

    def knows(self, reference: Reference, digest: Digest) -> bool:
        """Return True if the layer is open or being opened."""
        return any(_Key(str(reference), digest, verified) in self._slots for verified in (True, False))

    def close(self) -> None:
        """Stop background work and close all layers and caches."""
        self.scheduler.close()
        self.prefetcher.close()
        with self._lock:
            self._closed = True
            layers = [slot.future.result() for slot in self._slots.values() if slot.future.done()]
            self._slots.clear()
            self._unused.clear()
        for layer in layers:
            self._close_layer(layer)
        self._chunks.close()
        self._ranges.close()

    def _open(self, slot: _Slot, reference: Reference, descriptor: Descriptor) -> None:
        try:
            with self.scheduler.foreground():
                layer = self._open_layer(reference, descriptor, slot.key.verified)
        except Exception as error:  # noqa: BLE001 - all who wait are told, whatever it was
            with self._lock:
                if self._slots.get(slot.key) is slot:
                    del self._slots[slot.key]
            failure = error if isinstance(error, LazylayerError) else LayerError(f"{descriptor.digest}: {error!r}")
            slot.future.set_exception(failure)
            self._hooks.report_state(StateEvent("failed", slot.key.reference, error=one_line(str(failure))))
            return
        with self._lock:
            slot.future.set_result(layer)
            too_late = self._closed
        if too_late:
            self._close_layer(layer)
            return
        self._hooks.report_state(StateEvent("resolved", slot.key.reference, (layer.state(),)))
        self._evict(slot)

    def _blob(self, reference: Reference, descriptor: Descriptor) -> Blob:
        scope = self._settings.cache.scope_of(reference.host or reference.scheme, reference.repository)
        return Blob(partial(self._hooks.resolve_blob, reference, descriptor), descriptor.digest, descriptor.size, scope)

    def _open_layer(self, reference: Reference, descriptor: Descriptor, verify: bool) -> Layer:
        blob = self._blob(reference, descriptor)
        opening = Opening(blob, self._ranges)
        try:
            contents = self._open_contents(reference, opening, descriptor, verify)
            opening.confirm()
            descriptor = msgspec.structs.replace(descriptor, size=opening.size)
            fetcher = Fetcher(blob, contents, self._chunks, self.scheduler, self._settings.fetch)
        except BaseException:
            blob.close()
            raise
        for byte_range in opening.seen:
            fetcher.inventory.add_bytes(byte_range)
        layer = Layer(reference, descriptor, contents, fetcher, self._hooks.report_state)
        layer.virtual = self._hooks.add_virtual_entries(layer)
        layer.windows.follow(self._hooks.layer_opened(layer))
        return layer

    def _open_contents(
        self, reference: Reference, opening: Opening, descriptor: Descriptor, verify: bool
    ) -> LayerContents:
        companions = Companions(self._hooks, reference, opening)
        try:
            return self._hooks.open_layer(opening, descriptor, verify, companions)
        except LayerError as error:
            # All that was read is suspect: a cache has damaged it, or a mirror serves something else.
            if not opening.distrust(error):
                raise
        except ResolveError as error:
            if not opening.doubt_size(error):
                raise
        return self._hooks.open_layer(opening, descriptor, verify, companions)

    def _release(self, slot: _Slot) -> None:
        with self._lock:
            slot.users -= 1
        self._evict(slot)

    def _evict(self, slot: _Slot) -> None:
        """Count a slot as unused if it is, and close the layers that are unused for longest, but for `resolve.keep`."""
        surplus: list[Layer] = []
        with self._lock:
            if not slot.users and self._slots.get(slot.key) is slot and slot.future.done():
                self._unused[slot.key] = slot
            while len(self._unused) > self._settings.resolve.keep:
                key, oldest = self._unused.popitem(last=False)
                del self._slots[key]
                surplus.append(oldest.future.result())
        for layer in surplus:
            self._close_layer(layer)

    def _close_layer(self, layer: Layer) -> None:
        layer.close()
        self.prefetcher.forget(layer)
