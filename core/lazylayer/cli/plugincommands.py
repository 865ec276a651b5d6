"""Find the commands that installed distributions offer, without importing the distributions.

A command is an entry point of the group `lazylayer.commands`: its name is the name of the command, and
its value is `package.module:command`, a `click.Command`. The module is imported when the command is used.
The list of commands shows summaries, which are read from the source text of the modules.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

import click

from lazylayer.errors import PluginError
from lazylayer.plugin.selection import distribution_of, find_entry_points, version_of, why_disabled

if TYPE_CHECKING:
    import ast
    from importlib.machinery import ModuleSpec

    from lazylayer.cli.choice import PluginChoice

__all__ = ["GROUP", "PluginCommands"]

GROUP = "lazylayer.commands"
"""The group of entry points that commands are found in."""


class PluginCommands:
    """The commands of plugins, by name. Imports a module only to load the command in it.

    :param taken: names that no plugin can have.
    :param choice: a distribution all of whose plugins it disables offers no commands.
    :param warn: told in one line of each command that is left out because its name is taken.
    """

    def __init__(self, taken: Collection[str], choice: PluginChoice, warn: Callable[[str], None]) -> None:
        self._entry_points: dict[str, EntryPoint] = {}
        disabled = _disabled_distributions(choice)
        for each in sorted(entry_points(group=GROUP), key=lambda each: (each.name, distribution_of(each))):
            distribution = distribution_of(each)
            if distribution in disabled:
                continue
            if each.name in taken or each.name in self._entry_points:
                warn(f"plugin {distribution}: command {each.name} already exists; ignored")
            else:
                self._entry_points[each.name] = each

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all commands, sorted."""
        return tuple(self._entry_points)

    def entry_point(self, name: str) -> EntryPoint:
        """Return the entry point of the command."""
        return self._entry_points[name]

    def package(self, name: str) -> str:
        """Return the top-level package that the command is in."""
        return self._entry_points[name].module.partition(".")[0]

    def load(self, name: str) -> click.Command:
        """Import the command. Raises PluginError if the import fails, or if it is not a command."""
        entry_point = self._entry_points[name]
        try:
            command = entry_point.load()
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise _failure(entry_point, f"import failed: {said}; reinstall {distribution_of(entry_point)}") from error
        if not isinstance(command, click.Command):
            raise _failure(entry_point, f"{entry_point.value} is not a click.Command")
        return command

    def describe(self, name: str) -> click.Command:
        """Return a command with the help texts of this one, to show in a list, but without its behaviour.

        Reads the source text. Imports the command if its help is not written there.
        """
        entry_point = self._entry_points[name]
        function = _find_function(_read_source(entry_point.module), entry_point.attr)
        described = _describe(function, name) if function is not None else None
        if described is not None:
            return described
        try:
            return self.load(name)
        except PluginError as error:
            return click.Command(name, short_help=f"(cannot be used: {error})")


def _failure(entry_point: EntryPoint, said: str) -> PluginError:
    plugin, version = distribution_of(entry_point), version_of(entry_point)
    return PluginError(f"command {entry_point.name}: {said}", plugin=plugin, version=version)


def _disabled_distributions(choice: PluginChoice) -> set[str]:
    if not choice.enabled and not choice.disabled:
        return set()
    plugins = find_entry_points()
    allowed = {distribution_of(each) for each in plugins if not why_disabled(each, choice.enabled, choice.disabled)}
    return {distribution_of(each) for each in plugins} - allowed


def _read_source(module: str) -> str:
    """Return the source text of a module, without importing it or its parents; empty if there is none."""
    name, spec = "", None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = _find_spec(name, spec.submodule_search_locations if spec is not None else None)
        if spec is None:
            return ""
    get_source: Callable[[str], str | None] | None = getattr(spec and spec.loader, "get_source", None)
    try:
        return (get_source and get_source(module)) or ""
    except (ImportError, SyntaxError, UnicodeError):
        return ""


def _find_spec(name: str, path: list[str] | None) -> ModuleSpec | None:
    if "." in name and path is None:
        return None  # the parent is not a package
    found: Iterable[ModuleSpec | None] = (finder.find_spec(name, path) for finder in sys.meta_path)
    return next((spec for spec in found if spec is not None), None)


def _find_function(source: str, name: str) -> ast.FunctionDef | None:
    """Return the only definition of the function at the top level of a module; None if there is not one."""
    import ast

    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError):
        return None
    found = [each for each in statements if isinstance(each, ast.FunctionDef) and each.name == name]
    return found[0] if len(found) == 1 else None


def _describe(function: ast.FunctionDef, name: str) -> click.Command | None:
    """Return a command with the help of a decorated function; None if it takes more than reading to know it."""
    import ast

    said: dict[str, object] = {"help": ast.get_docstring(function)}
    for decorator in function.decorator_list:
        if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func).rpartition(".")[2] not in _MAKERS:
            continue
        for keyword in decorator.keywords:
            if keyword.arg is None or (keyword.arg in _SAID and not isinstance(keyword.value, ast.Constant)):
                return None
            if keyword.arg in _SAID and isinstance(keyword.value, ast.Constant):
                said[keyword.arg] = keyword.value.value
    texts = [said.get("help"), said.get("short_help")]
    help_text, short_help = (text if isinstance(text, str) else None for text in texts)
    if help_text is None and short_help is None:
        return None
    return click.Command(name, help=help_text, short_help=short_help, hidden=bool(said.get("hidden")))


_MAKERS = ("command", "group")
"""The last names of the decorators that make a command of a function."""

_SAID = ("help", "short_help", "hidden")
