"""`lazylayer config init` and `lazylayer config import`: begin a configuration."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click

_FILE = click.Path(dir_okay=False, path_type=Path)
_LARGEST = 4 * 1024 * 1024


@click.command()
@click.argument("file", type=_FILE, metavar="[FILE]", required=False)
def config_init(file: Path | None) -> None:
    """Write every setting with its default and meaning, as comments, to FILE or to standard output.

    FILE must not exist; uncomment what you change.
    """
    from lazylayer_tool_node.settingstext import settings_text

    if file is None:
        click.echo(settings_text(), nl=False)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("x") as created:
        created.write(settings_text())
    click.echo(f"wrote {file}; check it with `lazylayer --config {file} config check`")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
def config_import(file: Path) -> None:
    """Translate FILE, a configuration of stargz-snapshotter, and print it as ours.

    FILE is usually /etc/containerd-stargz-grpc/config.toml. What has no equal here is left out, and comments at the
    end say why.
    """
    from lazylayer.errors import ConfigurationError
    from lazylayer_tool_node.stargz import translate
    from lazylayer_tool_node.tomltext import to_toml

    with file.open("rb") as opened:
        data = opened.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise ConfigurationError(f"{file}: larger than {_LARGEST} bytes")
    try:
        theirs = tomllib.loads(data.decode())
    except ValueError as error:
        raise ConfigurationError(f"{file}: not TOML: {error}") from error
    translation = translate(theirs)
    click.echo(f"# Translated from {file} by `lazylayer config import`.")
    click.echo(to_toml(translation.tables), nl=False)
    if translation.left_out:
        click.echo("\n# Left out:")
        for line in translation.left_out:
            click.echo(f"#   {line}")
