"""Chunks and ranges on disk: persistent, content-addressed, size-limited."""

from __future__ import annotations
