"""The face of a room: names that are imported when they are first used, so that a command imports what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["lazy_face"]


def lazy_face(room: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Return the `__getattr__` of the package `room` (PEP 562). `modules` names the module of each name."""

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(import_module(f"{room}.{modules[name]}"), name)

    return get
