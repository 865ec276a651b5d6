"""Images and blobs from an OCI image layout on disk."""

from __future__ import annotations
