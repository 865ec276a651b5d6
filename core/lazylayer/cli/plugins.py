"""`lazylayer plugins …`: list the installed plugins, and check that they keep their contracts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lazylayer.cli.commands import OpenGroup
from lazylayer.cli.invocation import Invocation
from lazylayer.errors import PluginRequiredError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lazylayer.configuration.loading import Configuration
    from lazylayer.plugin.records import PluginRecord
    from lazylayer.plugin.registry import Plugins


_FIELDS = ("name", "distribution", "version", "status", "reason", "hooks", "target")
"""The fields of a record that are shown: not the options, which may hold secrets."""


@click.group(cls=OpenGroup)
def plugins() -> None:
    """Show and check plugins."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help='One JSON object: {"plugins": […], "commands": […]}.')
@click.pass_context
def list_plugins(context: click.Context, as_json: bool) -> None:
    """Show every plugin that is installed or asked for: version, hooks, status, and why; then commands of plugins.

    Plugins that are asked first come first. TIER is what a plugin states of its quality: bronze, silver or
    gold. A plugin that cannot be used does not make this command fail.
    """
    import msgspec

    records = _configured(context)[0].records
    commands = list(_find_commands(context))
    if as_json:
        shown = [_fields(each) for each in records]
        click.echo(msgspec.json.encode({"plugins": shown, "commands": commands}))
    else:
        click.echo(_as_text(records))
        if commands:
            click.echo("\n" + _as_table([("COMMAND", "TIER", "DISTRIBUTION"), *map(_command_cells, commands)]))


@plugins.command()
@click.argument("name", metavar="NAME")
@click.argument("arguments", nargs=-1, metavar="[-- PYTEST ARGUMENTS]")
@click.pass_context
def check(context: click.Context, name: str, arguments: tuple[str, ...]) -> None:
    """Run the conformance kits for the hooks of the plugin NAME on it.

    The plugin runs with the options that the configuration gives it. Arguments after `--` go to pytest:
    `-- -x -q`, for example. The kits for lazylayer's own hooks are in the extra lazylayer[testing].
    """
    from lazylayer.cli.kits import find_kits, run_kit

    loaded, configuration = _configured(context)
    record = loaded.record(name)
    if record is not None and record.status == "error":
        raise PluginRequiredError(
            _reason(record), plugin=name, distribution=record.distribution, version=record.version
        )
    loaded.require(name, "`lazylayer plugins check`")
    assert record is not None
    click.echo(f"{name} ({record.distribution} {record.version}) loads, accepts its options, and implements")
    kits = {hook: find_kits(hook) for hook in record.hooks}
    for hook, found in kits.items():
        checked = ", ".join(f"checked by {kit.value}" for kit in found)
        click.echo(f"  {hook}: {checked or 'no installed kit checks this hook'}")
    if not any(kits.values()):
        click.echo("the kits for lazylayer's own hooks are in the extra lazylayer[testing]")
    settings, tables = configuration.settings, configuration.plugin_tables
    results = [run_kit(kit, name, settings, tables, arguments) for found in kits.values() for kit in found]
    context.exit(max(results, default=0))


def _configured(context: click.Context) -> tuple[Plugins, Configuration]:
    """Return all plugins, configured as far as they can be. Raises nothing for a plugin that fails."""
    invocation = context.ensure_object(Invocation)
    configuration = invocation.configuration()
    found = invocation.plugins(configuration.settings)
    found.configure(configuration.settings, configuration.plugin_tables)
    return found, configuration


def _fields(record: PluginRecord) -> dict[str, object]:
    shown = {field: getattr(record, field) for field in _FIELDS}
    return {**shown, "reason": _reason(record), "tier": _tier(record)}


def _find_commands(context: click.Context) -> Iterator[dict[str, str]]:
    from lazylayer.cli.commands import CORE_COMMANDS
    from lazylayer.cli.quality import tier_of
    from lazylayer.plugin.selection import distribution_of, version_of

    commands = context.ensure_object(Invocation).plugin_commands(frozenset(CORE_COMMANDS))
    for name in commands.names:
        entry_point = commands.entry_point(name)
        yield {
            "name": name,
            "distribution": distribution_of(entry_point),
            "version": version_of(entry_point),
            "target": entry_point.value,
            "tier": tier_of(commands.package(name)),
        }


def _command_cells(command: dict[str, str]) -> tuple[str, ...]:
    return command["name"], command["tier"] or "-", f"{command['distribution']} {command['version']}"


def _tier(record: PluginRecord) -> str:
    from lazylayer.cli.log import package_of
    from lazylayer.cli.quality import tier_of

    package = package_of(record)
    return tier_of(package) if package else ""


def _as_text(records: Sequence[PluginRecord]) -> str:
    from lazylayer.api.text import one_line

    if not records:
        return "no plugin is installed"
    header = ("PLUGIN", "STATUS", "TIER", "DISTRIBUTION", "HOOKS")
    lines = _as_table([header, *(_cells(record) for record in records)]).splitlines()
    reasons = ("", *(_reason(record) for record in records))
    return "\n".join(f"{line}\n    {one_line(why)}" if why else line for line, why in zip(lines, reasons, strict=True))


def _reason(record: PluginRecord) -> str:
    """Return why a plugin cannot be used, and what to change if it was written for an earlier contract."""
    from lazylayer.cli.migration import explain_failure

    return "; ".join(filter(None, (record.reason, explain_failure(record))))


def _as_table(rows: Sequence[tuple[str, ...]]) -> str:
    """Align all columns but the last."""
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows), strict=True)]
    padded = ([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _cells(record: PluginRecord) -> tuple[str, ...]:
    hooks = ", ".join(hook.removeprefix("lazylayer_") for hook in record.hooks)
    distribution = " ".join(filter(None, (record.distribution, record.version))) or "not installed"
    return record.name, record.status, _tier(record) or "-", distribution, hooks
