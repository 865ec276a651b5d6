"""The landmarks of stargz-like layers.

Source: the eStargz specification of the Go stargz-snapshotter, `docs/estargz.md`, "Prioritized Files and
Landmark Files".
"""

from __future__ import annotations

from lazylayer_tarlayers.treebuilder import Landmarks

__all__ = ["LANDMARKS", "LANDMARK_CONTENT"]

LANDMARKS = Landmarks(prefetch=b".prefetch.landmark", no_prefetch=b".no.prefetch.landmark")

LANDMARK_CONTENT = b"\x0f"
"""The content of a landmark file: a file needs a byte to have a place in the layer."""
