"""Run the conformance kits on an installed plugin, for `lazylayer plugins check NAME`.

The kit of a hook is run by a test module beside this one, which opens the plugin as a program would:
by its entry point, with its options, through its hooks, but below a directory of the test's own.
The functions at the end are the entry points of the group `lazylayer.kits`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from lazylayer.api.settings import PluginsSettings, Settings
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import Plugins

__all__ = [
    "CheckedPlugin",
    "ConfiguredPlugin",
    "Kit",
    "check_cache",
    "check_format",
    "check_frontend",
    "check_keychain",
    "check_plan",
    "check_prefetch",
    "check_resolver",
]


class CheckedPlugin(msgspec.Struct, frozen=True):
    """The plugin that is checked; picklable, so that kits can use it in other processes."""

    name: str
    settings: Settings
    tables: Mapping[str, Any]

    def load(self, root: Path, **options: object) -> Plugins:
        """Load and configure the plugin alone, as a new program below `root` does.

        :param options: what the kit demands beside, or instead of, what is configured.
        """
        table = {**self.tables.get("plugin", {}).get(self.name, {}), **options}
        settings = msgspec.structs.replace(
            self.settings,
            root=str(root / "root"),
            run=str(root / "run"),
            plugins=PluginsSettings(enabled=(self.name,)),
        )
        plugins = Plugins.load(settings.plugins)
        plugins.configure(settings, {**self.tables, "plugin": {self.name: table} if table else {}})
        plugins.require(self.name, "the conformance kit")
        return plugins

    def plugin(self, root: Path, **options: object) -> object:
        """Return the plugin itself, configured; arguments as for `load`."""
        return self.load(root, **options).manager.get_plugin(self.name)

    def open(self, root: Path, **options: object) -> Hooks:
        """Return the plugin's hooks, as of a new program; arguments as for `load`."""
        return self.load(root, **options).hooks()


class ConfiguredPlugin:
    """The base of checks that ask the plugin with the options that are configured."""

    @pytest.fixture
    def hooks(self, checked_plugin: CheckedPlugin, tmp_path: Path) -> Iterator[Hooks]:
        """The plugin's hooks, of a new program."""
        hooks = checked_plugin.open(tmp_path)
        yield hooks
        hooks.close()


class Kit:
    """A kit as `lazylayer plugins check` runs it: one pytest session.

    :param module: the file name of the test module, beside this one.
    """

    def __init__(self, module: str) -> None:
        self._module = Path(__file__).with_name(module)

    def __call__(self, name: str, settings: Settings, tables: Mapping[str, Any], arguments: Sequence[str] = ()) -> int:
        """Check plugin `name`. Return 0 if it passes, else pytest's exit code.

        :param settings: of the program.
        :param tables: the tables of plugins, nested as in TOML: `{"plugin": {NAME: {…}}}`.
        :param arguments: more arguments for pytest.
        """
        with tempfile.TemporaryDirectory(prefix="lazylayer-check-") as directory:
            command = [
                str(self._module),
                "--rootdir",
                directory,
                "-c",
                os.devnull,
                "--import-mode=importlib",
                "-p",
                "no:cacheprovider",
                *arguments,
            ]
            return int(pytest.main(command, plugins=[_fixtures(CheckedPlugin(name, settings, tables))]))


def _fixtures(plugin: CheckedPlugin) -> ModuleType:
    """Return a plugin for pytest with the fixture `checked_plugin`."""

    @pytest.fixture(scope="session")
    def checked_plugin() -> CheckedPlugin:
        """The plugin that the command line names."""
        return plugin

    module = ModuleType("lazylayer_checked_plugin")
    module.checked_plugin = checked_plugin  # type: ignore[attr-defined]
    return module


check_cache = Kit("check_cache.py")
check_format = Kit("check_format.py")
check_frontend = Kit("check_frontend.py")
check_keychain = Kit("check_keychain.py")
check_plan = Kit("check_plan.py")
check_prefetch = Kit("check_prefetch.py")
check_resolver = Kit("check_resolver.py")
