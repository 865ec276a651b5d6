"""The workloads, one module for each family."""

from __future__ import annotations

from workloads import caches, cold, convert, inflate, kill, mounts, trees

__all__ = ["WORKLOADS"]

WORKLOADS = (
    *cold.WORKLOADS,
    *trees.WORKLOADS,
    *mounts.WORKLOADS,
    *kill.WORKLOADS,
    *convert.WORKLOADS,
    *caches.WORKLOADS,
    *inflate.WORKLOADS,
)
