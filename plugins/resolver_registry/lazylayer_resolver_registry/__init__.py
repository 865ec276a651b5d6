"""Images and blobs from an OCI distribution registry, over httpx."""

from __future__ import annotations

from lazylayer_resolver_registry.plugin import ResolverRegistry

__all__ = ["ResolverRegistry"]
