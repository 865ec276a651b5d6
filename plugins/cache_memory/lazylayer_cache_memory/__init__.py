"""Chunks and ranges in RAM, bounded by bytes."""

from __future__ import annotations
