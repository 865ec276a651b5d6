"""`lazylayer plugins …`: which plugins there are, and whether they keep their contracts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lazylayer.cli.invocation import Invocation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazylayer.configuration.loading import Configuration
    from lazylayer.plugin.records import PluginRecord
    from lazylayer.plugin.registry import Plugins


_FIELDS = ("name", "distribution", "version", "status", "reason", "hooks", "target")
"""The fields of a record that are shown: not the options, which may hold secrets."""


@click.group()
def plugins() -> None:
    """Show and check plugins."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help='One JSON object: {"plugins": […]}.')
@click.pass_context
def list_plugins(context: click.Context, as_json: bool) -> None:
    """Show every plugin that is installed or asked for: version, hooks, status, and why.

    Those that are asked first come first. A plugin that cannot be used does not make this fail.
    """
    import msgspec

    records = _configured(context)[0].records
    if as_json:
        shown = [{field: getattr(each, field) for field in _FIELDS} for each in records]
        click.echo(msgspec.json.encode({"plugins": shown}))
    else:
        click.echo(_as_text(records))


@plugins.command()
@click.argument("name", metavar="NAME")
@click.argument("arguments", nargs=-1, metavar="[-- PYTEST ARGUMENTS]")
@click.pass_context
def check(context: click.Context, name: str, arguments: tuple[str, ...]) -> None:
    """Run the conformance kits for the hooks of the plugin NAME on it.

    The plugin runs with the options that the configuration gives it. What follows `--` goes to
    pytest: `-- -x -q`, say. Needs the extra lazylayer[testing].
    """
    from lazylayer.errors import LazylayerError

    loaded, configuration = _configured(context)
    loaded.require(name, "`lazylayer plugins check`")
    record = loaded.record(name)
    assert record is not None
    try:
        from lazylayer_testing.checks.plugin import check_plugin
    except ImportError as error:
        raise LazylayerError(f"{error}; the kits need `pip install 'lazylayer[testing]'`") from error
    context.exit(check_plugin(record, configuration.settings, configuration.plugin_tables, arguments))


def _configured(context: click.Context) -> tuple[Plugins, Configuration]:
    """All plugins, configured as far as they can be: nothing that a plugin does is an error here."""
    invocation = context.ensure_object(Invocation)
    configuration = invocation.configuration()
    found = invocation.plugins(configuration.settings.plugins)
    found.configure(configuration.settings, configuration.plugin_tables)
    return found, configuration


def _as_text(records: Sequence[PluginRecord]) -> str:
    from lazylayer.api.text import one_line

    if not records:
        return "no plugin is installed; `pip install lazylayer-resolver-registry`, for one"
    header = ("PLUGIN", "STATUS", "DISTRIBUTION", "HOOKS")
    rows = [header, *(_cells(record) for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for row, reason in zip(rows, ["", *(record.reason for record in records)], strict=True):
        padded = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
        lines.append("  ".join([*padded, row[3]]).rstrip())
        if reason:
            lines.append(f"    {one_line(reason)}")
    return "\n".join(lines)


def _cells(record: PluginRecord) -> tuple[str, str, str, str]:
    hooks = ", ".join(hook.removeprefix("lazylayer_") for hook in record.hooks)
    distribution = " ".join(filter(None, (record.distribution, record.version))) or "not installed"
    return record.name, record.status, distribution, hooks
