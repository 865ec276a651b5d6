"""Fetch one layer's bytes, from a missing chunk to verified data.

This room may import `lazylayer.errors`, `lazylayer.api` and `lazylayer.concurrency`; never a hook or a plugin.
Begin reading in `fetcher`, at `Fetcher.read`. Programs that are plugins may import the names below from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazylayer.faces import lazy_face

if TYPE_CHECKING:
    from lazylayer.fetching.blob import Blob
    from lazylayer.fetching.opening import Opening
    from lazylayer.fetching.unpacking import WantedMember, unpack

__all__ = ["Blob", "Opening", "WantedMember", "unpack"]

_MODULES = {"Blob": "blob", "Opening": "opening"}
_MODULES |= {"WantedMember": "unpacking", "unpack": "unpacking"}

__getattr__ = lazy_face(__name__, _MODULES)
