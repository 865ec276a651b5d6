"""One run of the command line: what the options of the `lazylayer` group said, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from loguru import logger

if TYPE_CHECKING:
    from lazylayer.api.settings import LogSettings, PluginsSettings
    from lazylayer.configuration.loading import Configuration
    from lazylayer.plugin.registry import Plugins

__all__ = ["Invocation"]


class Invocation:
    """Reads the configuration, and loads plugins, at most once and only when they are needed."""

    def __init__(self) -> None:
        self.config: Path | None = None
        self.overrides: list[str] = []
        self.debug = False
        self._plugins: tuple[PluginsSettings, Plugins] | None = None
        self._commands: Mapping[str, click.Command] | None = None

    def configuration(self, overrides: Sequence[str] = ()) -> Configuration:
        """The configuration, with further `overrides` of the command at hand; sets up the log."""
        from lazylayer.configuration.loading import load_configuration

        configuration = load_configuration(self.config, [*self.overrides, *overrides])
        self._set_up_log(configuration.settings.log)
        return configuration

    def plugins(self, wanted: PluginsSettings) -> Plugins:
        """The wanted plugins, imported, for one program: the next call imports them again.

        A plugin's command runs with the very plugin that added it.
        """
        from lazylayer.log import enable_plugins
        from lazylayer.plugin.registry import Plugins

        ready, self._plugins = self._plugins, None
        plugins = ready[1] if ready is not None and ready[0] == wanted else Plugins.load(wanted)
        enable_plugins(plugins.packages)
        return plugins

    def plugin_commands(self, taken: frozenset[str]) -> Mapping[str, click.Command]:
        """The commands that plugins add under names that are not taken.

        Plugins are imported for it and not configured. Where the configuration cannot be read there
        are none: the command line explains itself all the same.
        """
        if self._commands is None:
            self._commands = self._find_plugin_commands(taken)
        return self._commands

    def _find_plugin_commands(self, taken: frozenset[str]) -> Mapping[str, click.Command]:
        from lazylayer.api.settings import LogSettings
        from lazylayer.configuration.loading import load_plugin_choice
        from lazylayer.errors import ConfigurationError

        self._set_up_log(LogSettings())
        try:
            wanted = load_plugin_choice(self.config, self.overrides)
        except ConfigurationError as error:
            logger.warning("commands of plugins are left out: {error}", error=str(error))
            return {}
        plugins = self.plugins(wanted)
        self._plugins = (wanted, plugins)
        group = click.Group("lazylayer")
        plugins.command_hooks().add_commands(group)
        for name in sorted(taken & group.commands.keys()):
            logger.warning("a plugin adds a command {name}, which the core has; it is left out", name=name)
            del group.commands[name]
        return group.commands

    def _set_up_log(self, settings: LogSettings) -> None:
        import msgspec

        from lazylayer.log import set_up

        set_up(msgspec.structs.replace(settings, level="DEBUG") if self.debug else settings)
