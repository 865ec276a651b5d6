"""containerd starts containers from lazylayer's mounts: a remote snapshotter, and lazy pull."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazylayer_snapshotter_containerd.plugin import SnapshotterContainerd

__all__ = ["SnapshotterContainerd"]


def __getattr__(name: str) -> object:
    """Import the plugin when it is loaded: `lazylayer pull` does without (PEP 562)."""
    if name != "SnapshotterContainerd":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lazylayer_snapshotter_containerd.plugin import SnapshotterContainerd

    return SnapshotterContainerd
