"""`lazylayer plugins new` and `lazylayer plugins options`: for authors and users of plugins."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import click

from lazylayer.api.decoding import decode_json
from lazylayer.cli import pass_program
from lazylayer.program import Program

_NAME = re.compile(r"cache_[a-z0-9_]*[a-z0-9]")


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("directory", type=click.Path(path_type=Path), metavar="[DIR]", required=False)
def plugins_new(name: str, directory: Path | None) -> None:
    """Write a small plugin that works, with its tests, to start your own from.

    NAME is its name in the configuration, cache_mine for example: the scaffold is a cache in memory. DIR is a new
    directory, by default named as the distribution.
    """
    if not _NAME.fullmatch(name):
        raise click.BadParameter(
            f"{name}: begin with cache_, then lower-case letters, digits and underscores; docs/writing-a-plugin.md "
            "lists the hooks of other kinds",
            param_hint="'NAME'",
        )
    target = directory or Path(f"lazylayer-{name.replace('_', '-')}")
    target.mkdir(parents=True)
    for path, text in read_template(name).items():
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    click.echo(f"wrote {target}; next: cd {target} && pip install -e '.[test]' && pytest")


def read_template(name: str) -> dict[str, str]:
    """Return the files of the template by path, for a plugin of this name."""
    data = files("lazylayer_tool_node").joinpath("template.json").read_bytes()
    template = decode_json(data, dict[str, str])
    short = name.removeprefix("cache_")
    camel = "".join(part.capitalize() for part in short.split("_"))
    words = {
        "cache_tiny": name,
        "cache-tiny": name.replace("_", "-"),
        "CacheTiny": f"Cache{camel}",
        "TinyCache": f"{camel}Cache",
        "tiny.py": f"{short}.py",
        f"lazylayer_{name}.tiny": f"lazylayer_{name}.{short}",
    }
    renamed = {}
    for path, text in template.items():
        for old, new in words.items():
            path, text = path.replace(old, new), text.replace(old, new)  # noqa: PLW2901
        renamed[path] = text
    return renamed


@click.command()
@click.argument("name", metavar="NAME")
@pass_program
def plugins_options(program: Program, name: str) -> None:
    """Show every option of the plugin NAME: what it takes, and its meaning; `config show --plugins` shows values."""
    import msgspec

    from lazylayer.api.units import explain_value
    from lazylayer_tool_node.settingstext import field_meanings

    program.plugins.require(name, "`lazylayer plugins options`")
    record = program.plugins.record(name)
    assert record is not None
    if record.options is None:
        click.echo(f"{name} has no options")
        return
    meanings = field_meanings(type(record.options))
    for field in msgspec.structs.fields(record.options):
        value = getattr(record.options, field.name)
        default = value == field.default if field.default is not msgspec.NODEFAULT else False
        takes = explain_value(field.type, "").removeprefix("expected ")
        click.echo(f"plugin.{name}.{field.encode_name}: {takes}{'' if default else ' (set)'}")
        for line in meanings.get(field.name, "").splitlines():
            click.echo(f"    {line}")
