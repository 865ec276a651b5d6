"""`lazylayer config …`: show the settings in force, their origin, and mistakes in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lazylayer.cli.commands import OpenGroup
from lazylayer.cli.invocation import Invocation

if TYPE_CHECKING:
    from pathlib import Path

    from lazylayer.configuration.layers import KeyPath
    from lazylayer.configuration.loading import Configuration
    from lazylayer.errors import ConfigurationError, LazylayerError
    from lazylayer.plugin.registry import Plugins


@click.group(cls=OpenGroup)
def config() -> None:
    """Show and check the configuration."""


@config.command()
@click.option("--origin", is_flag=True, help="Show the origin of each value too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, by key; with --origin value and origin.")
@click.option("--plugins", "with_plugins", is_flag=True, help="Show every option of the plugins, defaults included.")
@click.pass_context
def show(context: click.Context, origin: bool, as_json: bool, with_plugins: bool) -> None:
    """Show every setting in force, by default as TOML.

    Of the plugins' options it shows those that are set. Passwords and tokens are not shown.
    """
    from lazylayer.configuration.layers import dotted

    invocation = context.ensure_object(Invocation)
    configuration = invocation.configuration()
    tables = configuration.plugin_tables
    if with_plugins:
        tables = _option_tables(invocation.plugins(configuration.settings), tables)
    values = [(path, _shown(path, value), where) for path, value, where in values_of(configuration, tables)]
    if as_json:
        fields = {dotted(path): {"value": value, "origin": where} if origin else value for path, value, where in values}
        click.echo(json.dumps(fields, indent=2))
    else:
        click.echo(_as_toml(values, origin))


@config.command()
@click.pass_context
def check(context: click.Context) -> None:
    """List every mistake in the configuration. Exit with 78 if there is one.

    Also checks the options of plugins, and that plugins which are required or selected by name can be used.
    """
    from lazylayer.api.text import one_line
    from lazylayer.program import find_problems

    invocation = context.ensure_object(Invocation)
    problems: list[LazylayerError] = list(check_configuration(invocation.config, invocation.overrides))
    if problems:
        _show_and_exit(context, problems)
    configuration = invocation.configuration()
    plugins = invocation.plugins(configuration.settings)
    plugins.configure(configuration.settings, configuration.plugin_tables)
    for record in plugins.records:
        if record.status == "error":
            click.echo(f"lazylayer: warning: plugin {record.name} is left out: {one_line(record.reason)}", err=True)
    problems = find_problems(configuration, plugins)
    if problems:
        _show_and_exit(context, problems)
    files = ", ".join(map(str, configuration.files)) or "no file"
    click.echo(f"the configuration is good (read: {files})")


def values_of(configuration: Configuration, tables: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any, str]]:
    """Yield every key, in parts, with its value and origin: the core's, then those of the plugins' `tables`."""
    import msgspec

    from lazylayer.configuration.layers import leaves

    for path, value in leaves({**msgspec.to_builtins(configuration.settings), **tables}):
        yield path, value, configuration.origin(path)


def check_configuration(
    config: Path | None = None, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> list[ConfigurationError]:
    """Return all mistakes in the core's own settings. Parameters as in `load_configuration`."""
    from lazylayer.configuration.files import find_files
    from lazylayer.configuration.loading import find_mistakes, load_configuration, read_settings
    from lazylayer.errors import ConfigurationError

    try:
        problems = find_mistakes(read_settings(find_files(config), overrides, environment))
        if not problems:
            load_configuration(config, overrides, environment)
    except ConfigurationError as error:
        return [error]
    return problems


def _option_tables(plugins: Plugins, tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plugins' tables, with the defaults of the loaded plugins. Invalid ones stay as they are."""
    import msgspec

    from lazylayer.errors import ConfigurationError
    from lazylayer.plugin.options import declared_options, read_options

    shown = {**tables, "plugin": dict(tables.get("plugin", {}))}
    for record in plugins.records:
        plugin = plugins.plugin(record.name)
        declared, shared = declared_options(plugin), getattr(plugin, "options_table", "")
        if plugin is not None and declared is not None:
            with suppress(ConfigurationError):
                options = msgspec.to_builtins(read_options(tables, record.name, declared, shared))
                if shared:
                    shown[shared] = options.pop(shared)
                shown["plugin"][record.name] = options
    return shown


def _show_and_exit(context: click.Context, problems: Iterable[LazylayerError]) -> NoReturn:
    from lazylayer.api.text import one_line

    for problem in problems:
        click.echo(f"lazylayer: error: {one_line(str(problem))}", err=True)
    context.exit(78)


# Tables of headers for registries and mirrors, which carry tokens under any name.
_HEADERS = frozenset({"header", "headers"})


def _shown(path: tuple[str, ...], value: Any) -> Any:
    return _without_secrets("secret" if _HEADERS & set(path[:-1]) else path[-1], value)


def _without_secrets(name: str, value: Any) -> Any:
    from lazylayer.api.text import scrub
    from lazylayer.cli.secretnames import is_secret_name

    if isinstance(value, dict):
        secret = name in _HEADERS
        return {key: _without_secrets("secret" if secret else key, each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(name, each) for each in value]
    if value and is_secret_name(name):
        return "***"
    return scrub(value) if isinstance(value, str) else value


def _as_toml(values: list[tuple[tuple[str, ...], Any, str]], origin: bool) -> str:
    from lazylayer.configuration.layers import dotted

    lines: list[str] = []
    table: tuple[str, ...] = ()
    # Keys without a table first, or TOML would count them to the table above.
    for path, value, where in sorted(values, key=lambda each: len(each[0]) > 1):
        if path[:-1] != table:
            table = path[:-1]
            lines += ["", f"[{dotted(table)}]"]
        key = dotted(path[-1:])
        line = f"# {key} is not set" if value is None else f"{key} = {_toml_value(value)}"
        lines.append(f"{line}  # {where}" if origin else line)
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    """Return `value` as TOML on one line; strings, numbers and truth values are written as in JSON."""
    from lazylayer.configuration.layers import dotted

    if isinstance(value, dict):
        return "{" + ", ".join(f"{dotted((key,))} = {_toml_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return json.dumps(value) if isinstance(value, str | bool | int | float) else str(value)
