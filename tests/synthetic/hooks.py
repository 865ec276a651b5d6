"""Hooks of plugins that tests make of functions."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any

import msgspec

from lazylayer import hookimpl
from lazylayer.plugin.calling import ANSWERS
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.records import PluginRecord
from lazylayer.plugin.registry import make_manager

__all__ = ["any_of", "hooks_of", "plugin"]


def hooks_of(*records: PluginRecord, **plugins: object) -> Hooks:
    """Return a façade to plugins by name, the first one asked first."""
    manager = make_manager()
    for name in reversed(plugins):
        manager.register(plugins[name], name)
    return Hooks(manager, {record.name: record for record in records})


def plugin(**implementations: Callable[..., Any]) -> object:
    """Return a plugin with hooks by name, without prefix."""
    functions = {f"lazylayer_{name}": hookimpl(function) for name, function in implementations.items()}
    return type("Plugin", (), {name: staticmethod(function) for name, function in functions.items()})()


def any_of(hook: str) -> object:
    """Return an answer of the right type, of which nothing else is known."""
    make_manager()  # learns the hooks of other distributions
    kind = pkgutil.resolve_name(ANSWERS[f"lazylayer_{hook}"][0])
    if kind is bool:
        return True
    if issubclass(kind, msgspec.Struct):
        return kind(*(None for _ in kind.__struct_fields__))
    concrete: Any = type("Concrete", (kind,), {})
    concrete.__abstractmethods__ = frozenset()
    return object.__new__(concrete)
