"""Runs the conformance kits on an installed plugin: what `lazylayer plugins check NAME` does.

The kit of a hook is run by a test module beside this one, which opens the plugin as a program would:
by its entry point, with its options, through its hooks, but below a directory of the test's own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lazylayer.api.settings import PluginsSettings, Settings
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.records import PluginRecord
from lazylayer.plugin.registry import Plugins

__all__ = ["KITS", "CheckedPlugin", "check_plugin"]

KITS: Mapping[str, str] = {
    "lazylayer_open_cache": "check_cache.py",
    "lazylayer_mount_tree": "check_frontend.py",
    "lazylayer_get_credentials": "check_keychain.py",
    "lazylayer_resolve_blob": "check_resolver.py",
}
"""The test module that checks the implementation of a hook, for the hooks that have a kit."""


class CheckedPlugin(msgspec.Struct, frozen=True):
    """The plugin that is checked; picklable, so that kits can use it in other processes."""

    name: str
    settings: Settings
    tables: Mapping[str, Any]

    def open(self, root: Path, **options: object) -> Hooks:
        """The plugin's hooks, as of a new program, below `root`.

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
        return plugins.hooks()


def check_plugin(
    record: PluginRecord,
    settings: Settings,
    tables: Mapping[str, Any],
    arguments: Sequence[str] = (),
    echo: Callable[[str], None] = print,
) -> int:
    """Runs the kits for all hooks of the plugin; returns 0 if it passed them, else pytest's exit code.

    :param settings: of the program.
    :param tables: the tables of plugins, nested as in TOML: `{"plugin": {NAME: {…}}}`.
    :param arguments: more arguments for pytest.
    """
    kits = [KITS[hook] for hook in record.hooks if hook in KITS]
    echo(f"{record.name} ({record.distribution} {record.version}): loads, is configured, implements what it may")
    for hook in record.hooks:
        echo(f"  {hook}: {f'checked by {KITS[hook]}' if hook in KITS else 'there is no kit for this hook'}")
    if not kits:
        return 0
    with tempfile.TemporaryDirectory(prefix="lazylayer-check-") as directory:
        command = [
            *(str(Path(__file__).with_name(kit)) for kit in kits),
            "--rootdir",
            directory,
            "-c",
            os.devnull,
            "--import-mode=importlib",
            "-p",
            "no:cacheprovider",
            *arguments,
        ]
        return int(pytest.main(command, plugins=[_Fixtures(CheckedPlugin(record.name, settings, tables))]))


class _Fixtures:
    def __init__(self, plugin: CheckedPlugin) -> None:
        self._plugin = plugin

    @pytest.fixture
    def checked_plugin(self) -> CheckedPlugin:
        """The plugin that the command line names."""
        return self._plugin
