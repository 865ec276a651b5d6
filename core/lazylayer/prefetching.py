"""What a prefetch policy answers with."""

from __future__ import annotations

import msgspec

from lazylayer.extents import Extent

__all__ = ["PrefetchPlan"]


class PrefetchPlan(msgspec.Struct, frozen=True):
    """Which bytes of a layer's blob to fetch before its first use.

    `extents` are fetched in the order given and everything whole in them is inflated, verified and
    cached; no extents means that nothing is prefetched. `reason` says in a few words why, for logs.
    """

    extents: tuple[Extent, ...] = ()
    reason: str = ""
