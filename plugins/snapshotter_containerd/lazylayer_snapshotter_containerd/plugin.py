"""The plugin: it adds the commands `serve` and `pull`."""

from __future__ import annotations

import click

from lazylayer import hookimpl
from lazylayer_snapshotter_containerd.options import Options

__all__ = ["Options", "SnapshotterContainerd"]


class SnapshotterContainerd:
    """What the entry point names; nothing heavy is imported before a command runs."""

    @hookimpl
    def lazylayer_add_commands(self, cli: click.Group) -> None:
        """Adds the commands."""
        from lazylayer_snapshotter_containerd.commands import pull, serve

        cli.add_command(serve)
        cli.add_command(pull)
