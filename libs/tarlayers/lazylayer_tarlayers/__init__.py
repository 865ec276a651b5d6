"""Share what the stargz-like formats need: tar archives, tables of contents, packing, members, inflating."""

from __future__ import annotations
