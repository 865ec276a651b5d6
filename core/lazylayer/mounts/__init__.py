"""Mount, check and unmount; choose a frontend; tell processes what is mounted.

This room may import `layers`, `plugin`, `linux`, `api` and `program`.
Begin reading in `filesystem`. Programs that are plugins may import the names below from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazylayer.mounts.control import processes
    from lazylayer.mounts.controlserver import ControlServer
    from lazylayer.mounts.filesystem import Filesystem

__all__ = ["ControlServer", "Filesystem", "processes"]

_MODULES = {"ControlServer": "controlserver", "Filesystem": "filesystem"}
_MODULES |= {"processes": "control"}


def __getattr__(name: str) -> object:
    """Import a name when it is first used, so that a command imports nothing that it does not need."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
