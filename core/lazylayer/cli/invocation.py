"""One run of the command line: the options of the `lazylayer` group, and what is made from them once."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lazylayer.cli.interruption import Interruption

if TYPE_CHECKING:
    from lazylayer.api.settings import LogSettings, Settings
    from lazylayer.cli.choice import PluginChoice
    from lazylayer.cli.plugincommands import PluginCommands
    from lazylayer.configuration.loading import Configuration
    from lazylayer.plugin.registry import Plugins

__all__ = ["Invocation", "wants_color", "warn", "warn_of_silence"]


def wants_color(descriptor: int) -> bool:
    """Return True if text for this descriptor may have colours: it is a terminal, and NO_COLOR is not set."""
    return os.isatty(descriptor) and not os.environ.get("NO_COLOR")


def warn(message: str) -> None:
    """Write a warning to standard error, on one line."""
    from lazylayer.api.text import one_line

    head = click.style("lazylayer: warning:", fg="yellow", bold=True)
    click.echo(f"{head} {one_line(message)}", err=True, color=wants_color(2))


def warn_of_silence(pid: str, error: Exception) -> None:
    """Warn that a lazylayer process does not answer."""
    warn(f"process {pid} does not answer: {error}")


class Invocation:
    """One run, which reads the configuration and loads plugins only when they are needed."""

    def __init__(self) -> None:
        self.config: Path | None = None
        self.overrides: list[str] = []
        self.debug = False
        self.interruption = Interruption()
        self._commands: PluginCommands | None = None
        self._packages: set[str] = set()

    def configuration(self, overrides: Sequence[str] = ()) -> Configuration:
        """Return the configuration, with further `overrides` of the command at hand. Leaves the log alone."""
        from lazylayer.configuration.loading import load_configuration

        return load_configuration(self.config, [*self.overrides, *overrides])

    def run_directory(self) -> Path:
        """Return the run directory. Reads no other setting, since that takes longer than asking a daemon."""
        from lazylayer.cli.quick import read_run_directory

        return read_run_directory(self.config, self.overrides)

    def set_up_log(self, settings: LogSettings) -> None:
        """Log as the settings say, or in detail with `--debug`. Takes time: loguru is imported for it."""
        import msgspec

        from lazylayer.cli.log import enable_packages, set_up

        set_up(msgspec.structs.replace(settings, level="DEBUG") if self.debug else settings)
        enable_packages(self._packages)

    def plugins(self, settings: Settings) -> Plugins:
        """Set up the log, and import the plugins that the settings want, for one program."""
        from lazylayer.cli.log import enable_plugins
        from lazylayer.plugin.registry import Plugins

        self.set_up_log(settings.log)
        plugins = Plugins.load(settings.plugins)
        enable_plugins(plugins.records)
        return plugins

    def plugin_commands(self, taken: Collection[str]) -> PluginCommands:
        """Return the commands that installed distributions offer under names that are not `taken`.

        A distribution all of whose plugins are disabled offers none. If the configuration cannot be
        read, no plugin counts as disabled: the command that is run reports the mistake.
        """
        if self._commands is None:
            from lazylayer.cli.plugincommands import PluginCommands

            self._commands = PluginCommands(taken, self._choice(), warn)
        return self._commands

    def log_from(self, package: str) -> None:
        """Let a package log, once the log is set up."""
        self._packages.add(package)

    def _choice(self) -> PluginChoice:
        from lazylayer.cli.choice import PluginChoice, load_plugin_choice
        from lazylayer.errors import ConfigurationError

        try:
            return load_plugin_choice(self.config, self.overrides)
        except ConfigurationError as error:
            warn(f"commands of disabled plugins are shown too: {error}")
            return PluginChoice()
