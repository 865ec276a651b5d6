"""The plugin: it declares the options of `lazylayer serve`, and implements no hook."""

from __future__ import annotations

from lazylayer_snapshotter_containerd.options import Options

__all__ = ["Options", "SnapshotterContainerd"]


class SnapshotterContainerd:
    """The object that the entry point names."""
