"""The core's commands, and the group that finds a command, of the core or of a plugin, when it is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from lazylayer.cli.invocation import Invocation

if TYPE_CHECKING:
    from lazylayer.cli.plugincommands import PluginCommands

__all__ = ["CORE_COMMANDS", "LazyCommand", "LazyGroup", "OpenGroup"]


EXIT_BROKEN_PIPE = 141
"""As if SIGPIPE had ended the process, which a shell expects of the left side of `| head`."""


class LazyCommand(NamedTuple):
    """The place of a command (`module:name`), and its summary, so that `--help` need not import it."""

    target: str
    summary: str


CORE_COMMANDS: Mapping[str, LazyCommand] = {
    "mount": LazyCommand("lazylayer.cli.mount:mount", "Mount the image REF at DIR."),
    "umount": LazyCommand(
        "lazylayer.cli.umount:umount",
        "Unmount what `lazylayer mount` mounted at DIR, or all of it, and end the processes that serve it.",
    ),
    "ls": LazyCommand("lazylayer.cli.listing:ls", "List what lies at PATH, by default the root, in the image REF."),
    "cat": LazyCommand("lazylayer.cli.listing:cat", "Write the files at PATH in the image REF to standard output."),
    "status": LazyCommand(
        "lazylayer.cli.status:status",
        "Show every mount of this machine's lazylayer processes, and how much of it was fetched.",
    ),
    "doctor": LazyCommand("lazylayer.cli.doctor:doctor", "Show what this machine can do, and what to change."),
    "plugins": LazyCommand("lazylayer.cli.plugins:plugins", "Show and check plugins."),
    "config": LazyCommand("lazylayer.cli.config:config", "Show and check the configuration."),
}
"""Every command of the core. To add one: write it in a module of its own and name it here."""


class LazyGroup(click.Group):
    """The commands of `CORE_COMMANDS` and those of plugins, which cannot take a name of the core's.

    A command's module is imported when the command is used; the list of commands imports none of them.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, sorted."""
        return sorted({*CORE_COMMANDS, *filter(_is_of_its_own, _plugin_commands(ctx).names)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command; return None if there is none of this name."""
        lazy = CORE_COMMANDS.get(cmd_name)
        if lazy is None:
            return _load_plugin_command(ctx, cmd_name)
        module, _, name = lazy.target.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name; suggest the nearest name if there is none."""
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            near = get_close_matches(name, self.list_commands(ctx), 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"No such command '{name}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. End quietly, as by SIGPIPE, if the reader of its output goes away."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is still buffered has no reader; without this Python complains at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(EXIT_BROKEN_PIPE)
        return result

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands for `--help`."""
        commands = _plugin_commands(ctx)
        shown = {name: lazy.summary for name, lazy in CORE_COMMANDS.items()}
        limit = formatter.width - 6 - max(map(len, self.list_commands(ctx)))
        for name in filter(_is_of_its_own, commands.names):
            command = commands.describe(name)
            if not command.hidden:
                shown[name] = command.get_short_help_str(limit)
        with formatter.section("Commands"):
            formatter.write_dl(sorted(shown.items()))


_OPEN_GROUPS = ("plugins", "config")


def _is_of_its_own(name: str) -> bool:
    """Return False for the name of a plugin's command that belongs to a group of the core."""
    return not name.startswith(tuple(f"{group}-" for group in _OPEN_GROUPS))


class OpenGroup(click.Group):
    """A group of the core that plugins add commands to: `plugins-new` becomes `lazylayer plugins new`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names, sorted."""
        prefix = f"{self.name}-"
        added = [name.removeprefix(prefix) for name in _plugin_commands(ctx).names if name.startswith(prefix)]
        return sorted({*super().list_commands(ctx), *added})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the core's command, or import that of a plugin."""
        found = super().get_command(ctx, cmd_name)
        return found if found is not None else _load_plugin_command(ctx, f"{self.name}-{cmd_name}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands for `--help`, without importing those of plugins."""
        limit = formatter.width - 6 - max(map(len, self.list_commands(ctx)))
        rows = []
        for name in self.list_commands(ctx):
            command = super().get_command(ctx, name) or _plugin_commands(ctx).describe(f"{self.name}-{name}")
            rows.append((name, command.get_short_help_str(limit)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _plugin_commands(ctx: click.Context) -> PluginCommands:
    return ctx.ensure_object(Invocation).plugin_commands(frozenset(CORE_COMMANDS))


def _load_plugin_command(ctx: click.Context, name: str) -> click.Command | None:
    commands = _plugin_commands(ctx)
    if name not in commands.names:
        return None
    ctx.ensure_object(Invocation).log_from(commands.package(name))
    return commands.load(name)
