"""lazylayer: mount the layers of an OCI image and fetch each part when it is first read.

Plugin authors need two names from here: `hookimpl`, the marker of a hook implementation, and
`SkipPlugin`, raised by a plugin that cannot work on this machine. The hooks themselves are
explained in `lazylayer.api.hookspecs`.
"""

from __future__ import annotations

from pluggy import HookimplMarker as _HookimplMarker
from pluggy import HookspecMarker as _HookspecMarker

from lazylayer.errors import SkipPlugin

__all__ = ["SkipPlugin", "__version__", "hookimpl", "hookspec"]

__version__ = "0.1.0"

hookimpl = _HookimplMarker("lazylayer")
"""Marks a function or method as the implementation of the hook of the same name."""

hookspec = _HookspecMarker("lazylayer")
"""Marks the specification of a hook."""
