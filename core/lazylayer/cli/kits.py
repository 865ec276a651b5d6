"""Find and run the conformance kits that check the hooks of plugins.

A kit is an entry point of the group `lazylayer.kits`. Its name is the hook that it checks, and its value is a
function that runs it on one installed plugin:

    def check(name: str, settings: Settings, tables: Mapping[str, Any], arguments: Sequence[str]) -> int

`name` is the plugin, `settings` are those of the program, and `tables` those of the plugins, nested as in TOML.
`arguments` are for the test runner of the kit. The function returns 0 if the plugin passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from lazylayer.api.settings import Settings
from lazylayer.errors import LazylayerError
from lazylayer.plugin.selection import distribution_of

__all__ = ["GROUP", "find_kits", "run_kit"]

GROUP = "lazylayer.kits"

RunKit = Callable[[str, Settings, Mapping[str, Any], Sequence[str]], int]


def find_kits(hook: str) -> list[EntryPoint]:
    """Return the kits for a hook, by distribution."""
    return sorted(entry_points(group=GROUP, name=hook), key=distribution_of)


def run_kit(kit: EntryPoint, name: str, settings: Settings, tables: Mapping[str, Any], arguments: Sequence[str]) -> int:
    """Run a kit on plugin `name`. Return 0 if it passes, else the exit code of the kit's test runner.

    Raises LazylayerError if the kit cannot be imported.
    """
    try:
        run: RunKit = kit.load()
    except (ImportError, AttributeError) as error:
        raise LazylayerError(f"kit {kit.value} of {distribution_of(kit)}: {error}; reinstall it") from error
    return run(name, settings, tables, arguments)
