"""How a command gets its program: the settings, the plugins and the hooks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from lazylayer.cli.invocation import Invocation

if TYPE_CHECKING:
    import msgspec

    from lazylayer.api.settings import Settings
    from lazylayer.program import Program

__all__ = ["load_options", "load_program", "load_settings", "pass_program"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Options = TypeVar("Options", bound="msgspec.Struct")


@contextmanager
def load_program(context: click.Context, overrides: Sequence[str] = ()) -> Iterator[Program]:
    """The program that `--config` and `--set` ask for, closed at the end.

    :param overrides: `KEY=VALUE`, for what the command's own options say; stronger than `--set`.

    Raises ConfigurationError and PluginRequiredError.
    """
    from lazylayer.program import Program

    _forbid_core_files()
    invocation = context.ensure_object(Invocation)
    configuration = invocation.configuration(overrides)
    with Program(configuration, invocation.plugins(configuration.settings.plugins)) as program:
        yield program


def _forbid_core_files() -> None:
    """A core file would hold the credentials that this process learns, and what its readers read."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def load_settings(context: click.Context, overrides: Sequence[str] = ()) -> Settings:
    """The settings alone, for commands that need no plugin."""
    return context.ensure_object(Invocation).configuration(overrides).settings


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
    """Decorates a command: it gets the program as its first argument; see `load_program`."""

    @functools.wraps(command)
    def with_program(*arguments: Any, **options: Any) -> Result:
        with load_program(click.get_current_context()) as program:
            return command(program, *arguments, **options)

    return with_program
