"""Shared parts of the workloads: subjects, trees, results and their tables."""

from __future__ import annotations
