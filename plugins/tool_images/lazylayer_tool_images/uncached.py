"""Open blobs without a cache: a tool reads each range once."""

from __future__ import annotations

from lazylayer.api.cache import Cache
from lazylayer.fetching import Blob, Opening, RangeStore

__all__ = ["open_uncached"]


def open_uncached(blob: Blob) -> Opening:
    """Return an opening of a blob that keeps nothing of what it reads."""
    return Opening(blob, RangeStore(_NoCache()))


class _NoCache(Cache):
    def get(self, key: str) -> bytes | None:
        del key
        return None

    def put(self, key: str, data: bytes) -> None:
        del key, data
