"""Images and blobs from an OCI distribution registry, over httpx."""

from __future__ import annotations

import sys

from lazylayer_resolver_registry.plugin import ResolverRegistry

__all__ = ["ResolverRegistry"]

# Importing httpx imports its command line too, with rich and pygments if installed: 0.1 s and 7 MB
# for nothing. None makes that import fail, which httpx handles.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
