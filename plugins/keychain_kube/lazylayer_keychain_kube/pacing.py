"""Limits of the requests to the Kubernetes API: how often, and for how much."""

from __future__ import annotations

import msgspec

__all__ = ["Pacing"]


class Pacing(msgspec.Struct, frozen=True):
    """Times in seconds. Pauses between attempts double from the first to the longest."""

    first_pause: float = 0.5
    longest_pause: float = 30.0
    watch_seconds: float = 300.0
    """The least time after which a watch ends and begins again."""
    page_items: int = 250
    """Secrets in one page of a list."""
