"""The core's commands, and the group that finds a command, of the core or of a plugin, when it is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click

from lazylayer.cli.invocation import Invocation

__all__ = ["CORE_COMMANDS", "LazyCommand", "LazyGroup"]


EXIT_BROKEN_PIPE = 141
"""As if SIGPIPE had ended us, which is what a shell expects of the left side of `| head`."""


class LazyCommand(NamedTuple):
    """Where a command is (`module:name`), and its summary, so that `--help` need not import it."""

    target: str
    summary: str


CORE_COMMANDS: Mapping[str, LazyCommand] = {
    "mount": LazyCommand("lazylayer.cli.mount:mount", "Mount the image REF at DIR."),
    "umount": LazyCommand(
        "lazylayer.cli.mount:umount",
        "Unmount what `lazylayer mount` mounted at DIR, and end the process that serves it.",
    ),
    "ls": LazyCommand("lazylayer.cli.listing:ls", "List what lies at PATH, by default the root, in the image REF."),
    "cat": LazyCommand("lazylayer.cli.listing:cat", "Write the files at PATH in the image REF to standard output."),
    "status": LazyCommand(
        "lazylayer.cli.status:status",
        "Show every mount of this machine's lazylayer processes, and how much of it was fetched.",
    ),
    "convert": LazyCommand(
        "lazylayer_tool_images.commands.convert:convert", "Convert the image SRC and write it to DST."
    ),
    "doctor": LazyCommand("lazylayer.cli.doctor:doctor", "Show what this machine can do, and what to change."),
    "verify": LazyCommand(
        "lazylayer_tool_images.commands.verify:verify", "Check everything in the image REF against its digests."
    ),
    "diff": LazyCommand(
        "lazylayer_tool_images.commands.diff:diff", "Show what differs in what the images REF1 and REF2 show."
    ),
    "plugins": LazyCommand("lazylayer.cli.plugins:plugins", "Show and check plugins."),
    "config": LazyCommand("lazylayer.cli.config:config", "Show and check the configuration."),
}
"""Every command of the core. To add one: write it in a module of its own and name it here."""


class LazyGroup(click.Group):
    """The commands of `CORE_COMMANDS` and those of plugins, which cannot take a name of the core's.

    A command's module is imported when the command is used. For `--help` plugins are imported, since
    only they know their commands, but no more than that: they are not configured.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted({*CORE_COMMANDS, *self._plugin_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported, or None."""
        lazy = CORE_COMMANDS.get(cmd_name)
        if lazy is None:
            return self._plugin_commands(ctx).get(cmd_name)
        module, _, name = lazy.target.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. Ends quietly, as by SIGPIPE, when whoever reads its output went away."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is still buffered has no reader; without this Python complains at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(EXIT_BROKEN_PIPE)
        return result

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in `--help`."""
        plugin_commands = self._plugin_commands(ctx)
        shown = {name: lazy.summary for name, lazy in CORE_COMMANDS.items()}
        limit = formatter.width - 6 - max(map(len, self.list_commands(ctx)))
        for name, command in plugin_commands.items():
            if not command.hidden:
                shown[name] = command.get_short_help_str(limit)
        with formatter.section("Commands"):
            formatter.write_dl(sorted(shown.items()))

    def _plugin_commands(self, ctx: click.Context) -> Mapping[str, click.Command]:
        return ctx.ensure_object(Invocation).plugin_commands(frozenset(CORE_COMMANDS))
