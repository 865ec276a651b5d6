"""Images and blobs from an OCI distribution registry, over httpx."""

from __future__ import annotations
