"""Read Docker's config.json and run credential helper programs, for keychains."""

from __future__ import annotations
