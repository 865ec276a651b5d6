"""Mount, check and unmount; choose a frontend.

This room may import `layers`, `plugin`, `linux`, `api` and `program`.
Begin reading in `filesystem`. Programs that are plugins may import the names below from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazylayer.faces import lazy_face

if TYPE_CHECKING:
    from lazylayer.mounts.filesystem import Filesystem

__all__ = ["Filesystem"]

__getattr__ = lazy_face(__name__, {"Filesystem": "filesystem"})
