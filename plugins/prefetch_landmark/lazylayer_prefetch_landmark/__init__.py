"""The prefetch policy that landmarks and labels describe.

Who built the layer knows best: `.no.prefetch.landmark` means that nothing is worth fetching ahead,
`.prefetch.landmark` that everything in front of it is. A layer without either is fetched up to a
size: that of the label `containerd.io/snapshot/remote/stargz.prefetch` when it is set and is a
number, else `prefetch.size` of the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lazylayer import hookimpl
from lazylayer.api.byteranges import ByteRange
from lazylayer.api.labels import PREFETCH_SIZE, label_number
from lazylayer.api.layers import PrefetchPlan
from lazylayer.api.settings import Settings

if TYPE_CHECKING:
    from lazylayer.api.opened import OpenedLayer

__all__ = ["PrefetchLandmark"]


class PrefetchLandmark:
    """The plugin; it keeps the size that the settings name."""

    def __init__(self) -> None:
        self._size = 0

    @hookimpl
    def lazylayer_configure(self, settings: Settings) -> None:
        """Take `prefetch.size`."""
        self._size = settings.prefetch.size

    @hookimpl
    def lazylayer_plan_prefetch(self, layer: OpenedLayer, labels: Mapping[str, str]) -> PrefetchPlan:
        """Plan by the landmarks, or else by size; always answer."""
        tree, chunks, blob_size = layer.contents.tree, layer.contents.chunks, layer.descriptor.size
        if tree.no_prefetch:
            return PrefetchPlan(reason="the layer has a no-prefetch landmark")
        landmark = tree.prefetch_landmark
        if landmark is not None and landmark.chunk_count:
            end = chunks[landmark.first_chunk].offset
            return _up_to(end, "up to the prefetch landmark")
        wished = label_number(labels, PREFETCH_SIZE)
        if wished is not None:
            return _up_to(min(wished, blob_size), f"the label wishes for {wished} bytes")
        return _up_to(min(self._size, blob_size), f"prefetch.size is {self._size} bytes")


def _up_to(end: int, reason: str) -> PrefetchPlan:
    return PrefetchPlan((ByteRange(0, end),) if end else (), reason)
