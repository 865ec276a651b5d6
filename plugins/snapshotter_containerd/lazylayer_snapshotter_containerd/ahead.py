"""Mount the layers of an image before containerd asks for them, all at the same time.

containerd asks for one layer after the other, since each stands on the one below. `lazylayer pull` knows all of them
beforehand, so each is mounted in the directory of a snapshot that no client sees: it is pending, in a scope
of its own. The Prepare that asks for the layer takes it over; layers that no Prepare asks for are removed. After a
crash the next daemon finds pending snapshots, and removes them (`restoring`).

The lock is `LayersAhead._lock`; nothing is mounted, and no transaction begun, while it is held.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

from lazylayer.api.labels import layer_source
from lazylayer.errors import LazylayerError
from lazylayer_snapshotter_containerd.background import run_in_background
from lazylayer_snapshotter_containerd.directories import Directories
from lazylayer_snapshotter_containerd.identity import FormatLabels, LayerIdentity
from lazylayer_snapshotter_containerd.logger import logger
from lazylayer_snapshotter_containerd.remote import RemoteLayers
from lazylayer_snapshotter_containerd.store import Kind, Snapshot, Store

__all__ = ["LayerAhead", "LayersAhead", "WantedLayer"]

_AT_ONCE = 16
"""Mounts at the same time, of all pulls."""
_SCOPE = "\0ahead"
"""No name that containerd has for a snapshotter."""


class WantedLayer(NamedTuple):
    """A layer to mount ahead: the target that a Prepare will name, and its labels.

    `ready` is called in the thread of the mount before it begins; it may wait, and raise what fails the mount.
    """

    target: str
    labels: Mapping[str, str]
    ready: Callable[[], None]


class LayerAhead:
    """A layer that is being mounted ahead, for a Prepare of the scope."""

    def __init__(self, scope: str, wanted: WantedLayer, snapshot: Snapshot) -> None:
        self.scope = scope
        self.wanted = wanted
        self.snapshot = snapshot
        self.mounting: Future[None] = Future()
        self.committed = False
        """True once a Prepare has taken it over: containerd has it from now on."""

    def failure(self) -> str:
        """Wait until the mount is made, and return the reason why it failed, or nothing."""
        error = self.mounting.exception()
        return "" if error is None else str(error) or repr(error)


class LayersAhead:
    """The layers that are mounted ahead. Safe to use from any thread.

    :param abandon: removes a snapshot with its mount and directory.
    """

    def __init__(
        self,
        store: Store,
        directories: Directories,
        layers: RemoteLayers,
        formats: FormatLabels,
        abandon: Callable[[Snapshot], None],
    ) -> None:
        self._store = store
        self._directories = directories
        self._layers = layers
        self._formats = formats
        self._abandon = abandon
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(_AT_ONCE)
        self._waiting: list[LayerAhead] = []

    def mount(self, scope: str, wanted: Sequence[WantedLayer]) -> list[LayerAhead]:
        """Begin to mount layers, and return at once.

        Call `release` with the result when no Prepare will ask any more. Raises NoRoomError and OSError.
        """
        token = secrets.token_hex(8)
        ahead = []
        with self._store.transaction(_SCOPE) as transaction:
            for number, each in enumerate(wanted):
                snapshot = transaction.create(Kind.ACTIVE, f"{token} {number}", "", each.labels, pending=True)
                self._directories.create(snapshot)
                ahead.append(LayerAhead(scope, each, snapshot))
        for layer in ahead:
            layer.mounting = run_in_background(partial(self._mount, layer), "lazylayer-ahead")
        with self._lock:
            self._waiting += ahead
        return ahead

    def take(self, scope: str, target: str, labels: Mapping[str, str]) -> LayerAhead | None:
        """Return the layer that these labels ask for, if it is mounted ahead; it is the caller's then.

        Only a layer of the same image, blob and table of contents is the answer.
        """
        with self._lock:
            for each in self._waiting:
                if (each.scope, each.wanted.target) == (scope, target) and self._is_same(each.wanted.labels, labels):
                    self._waiting.remove(each)
                    return each
        return None

    def release(self, layers: Sequence[LayerAhead]) -> None:
        """Remove the layers that no Prepare has taken, in the background."""
        for each in layers:
            with self._lock:
                if each not in self._waiting:
                    continue
                self._waiting.remove(each)
            self.discard(each)

    def discard(self, layer: LayerAhead) -> None:
        """Remove a layer that was taken and is not wanted, in the background."""

        def discard() -> None:
            layer.failure()  # a mount under way cannot be removed
            try:
                self._abandon(layer.snapshot)
            except (LazylayerError, OSError) as error:
                logger.warning("a layer mounted ahead is not removed yet: {error}", error=error)

        run_in_background(discard, "lazylayer-ahead")

    def _mount(self, layer: LayerAhead) -> None:
        layer.wanted.ready()
        with self._slots:
            self._layers.mount(layer.snapshot.id, layer.wanted.labels)

    def _is_same(self, one: Mapping[str, str], other: Mapping[str, str]) -> bool:
        identity = LayerIdentity.of(one, self._formats)
        if identity is None or identity != LayerIdentity.of(other, self._formats):
            return False
        return layer_source(one).reference == layer_source(other).reference
