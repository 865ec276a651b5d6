"""Reads ordinary gzip and tar layers lazily, by indexes that SOCI's tools or lazylayer made.

indexes  find the index of an image, and the zTOC of each layer in it
reader   open a layer by its zTOC
"""

from __future__ import annotations

from lazylayer_format_soci.plugin import FormatSoci

__all__ = ["FormatSoci"]
