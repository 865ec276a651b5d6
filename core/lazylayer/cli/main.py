"""The `lazylayer` group, its options, and the exit codes of errors."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lazylayer import __version__
from lazylayer.cli.commands import LazyGroup
from lazylayer.cli.interruption import EXIT_INTERRUPTED
from lazylayer.cli.invocation import Invocation, wants_color
from lazylayer.errors import ConfigurationError, LazylayerError, PluginRequiredError

__all__ = ["cli", "main"]

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_CONFIGURATION = 78
"""EX_CONFIG of sysexits.h; systemd knows it too."""


def _remember_config(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    context.ensure_object(Invocation).config = value


def _remember_overrides(context: click.Context, _: click.Parameter, value: tuple[str, ...]) -> None:
    context.ensure_object(Invocation).overrides = list(value)


def _remember_debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.ensure_object(Invocation).debug = value


# Eager, so that `--config FILE --help` lists the commands of the plugins that FILE enables.
@click.group("lazylayer", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    is_eager=True,
    expose_value=False,
    callback=_remember_config,
    help="Configuration file, by default /etc/lazylayer/lazylayer.toml; conf.d/*.toml beside it is read too.",
)
@click.option(
    "--set",
    multiple=True,
    metavar="KEY=VALUE",
    is_eager=True,
    expose_value=False,
    callback=_remember_overrides,
    help="Set KEY, as in cache.chunks=cache_memory; overrides files and environment.",
)
@click.option(
    "-v",
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember_debug,
    help="Log in detail, and show tracebacks of errors.",
)
@click.version_option(__version__, "-V", "--version", prog_name="lazylayer")
def cli() -> None:
    """Mount the layers of OCI images and fetch each part when it is first read.

    REF is host/name:tag, host/name@digest, oci:DIR[:TAG] or oci-archive:FILE[:TAG].
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; `arguments` are those of the process by default."""
    invocation = Invocation()
    if threading.current_thread() is threading.main_thread():
        invocation.interruption.start()
    status = _run(arguments, invocation)
    try:
        sys.stdout.flush()
    except OSError:
        # It failed before, and _run has reported it. Python would try once more, and exit with 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _run(arguments: Sequence[str] | None, invocation: Invocation) -> int:
    try:
        result: Any = cli.main(
            None if arguments is None else list(arguments), "lazylayer", standalone_mode=False, obj=invocation
        )
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except (ConfigurationError, PluginRequiredError) as error:
        return _fail(str(error), error, invocation.debug, EXIT_CONFIGURATION)
    except LazylayerError as error:
        return _fail(str(error), error, invocation.debug, EXIT_FAILURE)
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return _fail(f"{where}{error.strerror or error}", error, invocation.debug, EXIT_FAILURE)
    except Exception as error:  # noqa: BLE001 - a defect of ours is reported in one line too
        said = f"{type(error).__name__}: {error} (a defect in lazylayer or a plugin; --debug shows where)"
        return _fail(said, error, invocation.debug, EXIT_FAILURE)
    return result if type(result) is int else 0


def _fail(said: str, error: Exception, debug: bool, status: int) -> int:
    from lazylayer.api.text import one_line

    if debug:
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            click.echo(one_line(line), err=True)
    click.echo(
        f"{click.style('lazylayer: error:', fg='red', bold=True)} {one_line(said)}", err=True, color=wants_color(2)
    )
    return status
