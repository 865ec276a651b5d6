"""Fetch one layer's bytes, from a missing chunk to verified data.

This room may import `lazylayer.errors`, `lazylayer.api` and `lazylayer.concurrency`; never a hook or a plugin.
Begin reading in `fetcher`, at `Fetcher.read`.
"""

from __future__ import annotations
