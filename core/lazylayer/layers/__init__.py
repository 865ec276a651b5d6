"""Open layers and images, lend them, and merge their trees.

This room may import `fetching`, `plugin` and `api`.
Begin reading in `store`, at `LayerStore`.
"""

from __future__ import annotations
