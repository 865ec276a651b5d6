"""Fetch one layer's bytes, from a missing chunk to verified data.

This room may import `lazylayer.errors`, `lazylayer.api` and `lazylayer.concurrency`; never a hook or a plugin.
Begin reading in `fetcher`, at `Fetcher.read`. Programs that are plugins may import the names below from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazylayer.fetching.blob import Blob
    from lazylayer.fetching.rangestore import Opening, RangeStore
    from lazylayer.fetching.unpacking import WantedMember, unpack
    from lazylayer.fetching.wholeblob import BlobStream

__all__ = ["Blob", "BlobStream", "Opening", "RangeStore", "WantedMember", "unpack"]

_MODULES = {"Blob": "blob", "BlobStream": "wholeblob", "Opening": "rangestore", "RangeStore": "rangestore"}
_MODULES |= {"WantedMember": "unpacking", "unpack": "unpacking"}


def __getattr__(name: str) -> object:
    """Import a name when it is first used, so that a command imports nothing that it does not need."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
