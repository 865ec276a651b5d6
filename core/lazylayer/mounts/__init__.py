"""Mount, check and unmount; choose a frontend; tell processes what is mounted.

This room may import `layers`, `plugin`, `linux`, `api` and `program`.
Begin reading in `filesystem`.
"""

from __future__ import annotations
