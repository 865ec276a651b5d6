"""Give commands their program: settings, plugins and hooks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from lazylayer.cli.invocation import Invocation

if TYPE_CHECKING:
    from pathlib import Path

    import msgspec

    from lazylayer.api.settings import Settings
    from lazylayer.program import Program

__all__ = ["load_options", "load_program", "load_settings", "pass_program", "run_directory"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Options = TypeVar("Options", bound="msgspec.Struct")


@contextmanager
def load_program(
    context: click.Context, overrides: Sequence[str] = (), config: Path | None = None
) -> Iterator[Program]:
    """Yield the program that `--config` and `--set` ask for, and close it at the end.

    :param overrides: `KEY=VALUE`, for the options of the command itself; stronger than `--set`.
    :param config: the file to read instead of that of `--config`.

    Raises ConfigurationError and PluginRequiredError.
    """
    from lazylayer.cli.fusetimeout import within_fuse_timeout
    from lazylayer.program import Program

    _forbid_core_files()
    invocation = context.ensure_object(Invocation)
    if config is not None:
        invocation.config = config
    configuration = invocation.configuration(overrides)
    with (
        Program(configuration, invocation.plugins(configuration.settings)) as program,
        invocation.interruption.calling(program.hooks.interrupt),
    ):
        program.settings = within_fuse_timeout(program.settings)
        yield program


def _forbid_core_files() -> None:
    """Forbid core files: they would hold the credentials that this process learns, and the bytes that it serves."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def load_settings(context: click.Context, overrides: Sequence[str] = ()) -> Settings:
    """Return the settings alone, for commands that need no plugin, and set up the log. Raises ConfigurationError."""
    invocation = context.ensure_object(Invocation)
    settings = invocation.configuration(overrides).settings
    invocation.set_up_log(settings.log)
    return settings


def run_directory(context: click.Context) -> Path:
    """Return the run directory, and read no other setting, which takes time. Raises ConfigurationError."""
    return context.ensure_object(Invocation).run_directory()


def load_options(context: click.Context, name: str, options: type[Options]) -> Options:
    """Return the options of plugin `name`, for its commands that need no plugin. Raises ConfigurationError."""
    from lazylayer.errors import ConfigurationError
    from lazylayer.plugin.options import read_options

    configuration = context.ensure_object(Invocation).configuration()
    try:
        return read_options(configuration.plugin_tables, name, options)
    except ConfigurationError as error:
        raise configuration.located(error) from error


def pass_program(command: Callable[Concatenate[Program, Parameters], Result]) -> Callable[Parameters, Result]:
    """Decorate a command, which gets the program as its first argument; see `load_program`."""

    @functools.wraps(command)
    def with_program(*arguments: Any, **options: Any) -> Result:
        with load_program(click.get_current_context()) as program:
            return command(program, *arguments, **options)

    return with_program
