"""containerd starts containers from lazylayer's mounts: a remote snapshotter, and lazy pull."""

from __future__ import annotations

from loguru import logger

from lazylayer_snapshotter_containerd.plugin import SnapshotterContainerd

__all__ = ["SnapshotterContainerd"]

logger.disable(__name__)
