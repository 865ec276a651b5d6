"""The events in the life of layers and mounts, as `lazylayer_report_state` receives them.

Events say that something changed; none is sent for a read that went well.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lazylayer.api.oci import Digest

__all__ = ["EventKind", "LayerState", "MountState", "StateEvent"]

EventKind = Literal["resolved", "mounted", "unmounted", "prefetched", "completed", "failed", "closed"]


class LayerState(msgspec.Struct, frozen=True):
    """The state of a layer: how much of it is here. Sizes in bytes, of the compressed blob.

    `fetched` counts every byte of the blob at most once, and those found in a cache too. `error` is
    the last failure of a read, or empty. `requests` and `network_bytes` count what this process
    asked of the source and got from it, tables of contents and repetitions included. `source` says
    for people where the bytes come from, a mirror for one; it is empty while nothing was asked.
    """

    digest: Digest
    size: int
    fetched: int
    error: str = ""
    requests: int = 0
    network_bytes: int = 0
    source: str = ""

    @property
    def percent(self) -> float:
        """The share of the blob that is here, 0 to 100."""
        return 100.0 * self.fetched / self.size if self.size else 100.0


class MountState(msgspec.Struct, frozen=True):
    """One mount: where it is, what it shows, by which frontend, and its layers, lowest first."""

    mountpoint: str
    reference: str
    frontend: str
    layers: tuple[LayerState, ...]


class StateEvent(msgspec.Struct, frozen=True):
    """One change, as told to `lazylayer_report_state`.

    - `resolved`: a layer was opened; its tree is known and verified.
    - `mounted`, `unmounted`: `mountpoint` was made or removed by `frontend`; `layers` are those it shows.
    - `prefetched`: what a layer's prefetch plan asked for is here.
    - `completed`: every chunk of a layer is here.
    - `failed`: `error` says what failed: a resolve, a read, a prefetch. Sent again for a layer only
      when the text changes.
    - `closed`: nothing uses the layer any more.
    """

    kind: EventKind
    reference: str = ""
    layers: tuple[LayerState, ...] = ()
    mountpoint: str = ""
    error: str = ""
    frontend: str = ""
