"""A program that is a plugin: `lazylayer index`, which indexes ordinary images without touching their layers.

Begin reading in `imageindexing`.
"""

from __future__ import annotations
