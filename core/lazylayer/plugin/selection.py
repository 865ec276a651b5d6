"""Find installed plugins by their entry points, and decide which of them `[plugins]` allows.

Imports no plugin, and little else: the list of commands needs it at every `lazylayer --help`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points

__all__ = [
    "EVERY_OTHER",
    "GROUP",
    "distribution_of",
    "explain_missing",
    "find_entry_points",
    "matches",
    "version_of",
    "why_disabled",
]

GROUP = "lazylayer.plugins"
"""The group of entry points that plugins are found in."""

EVERY_OTHER = "*"
"""In `plugins.enabled`: all plugins that it does not name."""


def find_entry_points() -> list[EntryPoint]:
    """Return the entry points of all installed plugins, by name and distribution. Imports none of them."""
    return sorted(entry_points(group=GROUP), key=lambda each: (each.name, distribution_of(each)))


def why_disabled(entry_point: EntryPoint, enabled: Sequence[str], disabled: Sequence[str]) -> str:
    """Return the reason why these lists of `[plugins]` disable a plugin; an empty string if they do not."""
    if any(matches(wish, entry_point) for wish in disabled):
        return "it is disabled: plugins.disabled names it"
    if enabled and not any(matches(wish, entry_point) for wish in enabled):
        return "it is disabled: plugins.enabled does not name it"
    # `name@distribution` chooses among several of one name, also beside `*`.
    pins = [wish for wish in enabled if wish.startswith(f"{entry_point.name}@")]
    if pins and not any(matches(pin, entry_point) for pin in pins):
        return f"it is disabled: plugins.enabled chooses {pins[0]}"
    return ""


def matches(wish: str, entry_point: EntryPoint) -> bool:
    """Return True if `NAME`, `NAME@DISTRIBUTION` or `*` means this plugin."""
    if wish in (entry_point.name, EVERY_OTHER):
        return True
    name, at, distribution = wish.partition("@")
    wanted = _normalized(distribution)
    return bool(at) and name == entry_point.name and wanted == _normalized(distribution_of(entry_point))


def distribution_of(entry_point: EntryPoint) -> str:
    """Return the name of the distribution that an entry point belongs to; empty if it is unknown."""
    return (entry_point.dist.name or "") if entry_point.dist is not None else ""


def version_of(entry_point: EntryPoint) -> str:
    """Return the version of the distribution that an entry point belongs to; empty if it is unknown."""
    return (entry_point.dist.version or "") if entry_point.dist is not None else ""


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def explain_missing(name: str, installed: Iterable[str]) -> str:
    """Return the reason why plugin `name` cannot be used, and what to do: it is not among the installed ones.

    Names no distribution to install: anybody could have published one under a name that is only guessed.
    """
    near = get_close_matches(name, installed, 1, 0.8)
    if near:
        return f"it is not installed; did you mean {near[0]}?"
    return "it is not installed; install its distribution, or choose a plugin that `lazylayer plugins list` shows"
