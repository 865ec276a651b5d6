"""The marker of a hook's specification."""

from __future__ import annotations

from pluggy import HookspecMarker

__all__ = ["hookspec"]

hookspec = HookspecMarker("lazylayer")
