"""Choose the wanted plugins among the installed ones, import them, and check their hooks."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import msgspec
import pluggy
from stevedore.extension import ExtensionManager

from lazylayer.errors import PluginError, SkipPlugin
from lazylayer.logger import logger
from lazylayer.plugin.calling import describe_error
from lazylayer.plugin.options import declared_options
from lazylayer.plugin.records import ContractError, PluginRecord, PluginStatus
from lazylayer.plugin.selection import (
    EVERY_OTHER,
    GROUP,
    distribution_of,
    explain_missing,
    matches,
    version_of,
    why_disabled,
)

if TYPE_CHECKING:
    from lazylayer.api.settings import PluginsSettings

__all__ = ["choose_entry_points", "hooks_of", "load_plugin"]


_NAME = re.compile(r"[a-z][a-z0-9_]*")


def choose_entry_points(
    found: list[EntryPoint], wanted: PluginsSettings
) -> tuple[list[EntryPoint], list[PluginRecord]]:
    """Return the entry points to load, in the order of asking, and the records of all other plugins."""
    refused: list[PluginRecord] = []
    left: list[EntryPoint] = []
    for each in found:
        reason = why_disabled(each, wanted.enabled, wanted.disabled)
        if reason:
            refused.append(_record(each, "disabled", reason))
        else:
            left.append(each)
    counts = Counter(each.name for each in left)
    for each in left:
        if counts[each.name] > 1:
            refused.append(_record(each, "error", _explain_duplicate(each.name, left)))
    usable = [each for each in left if counts[each.name] == 1]
    refused += _missing(found, wanted)
    return _in_order(usable, wanted.enabled), refused


def _explain_duplicate(name: str, found: list[EntryPoint]) -> str:
    rivals = [each for each in found if each.name == name]
    offers = ", ".join(f"{distribution_of(each)} {version_of(each)}" for each in rivals)
    return (
        f"{len(rivals)} distributions offer a plugin of this name: {offers}; "
        f'uninstall all but one, or choose one with plugins.enabled = ["{name}@{distribution_of(rivals[0])}", "*"]'
    )


def _missing(found: list[EntryPoint], wanted: PluginsSettings) -> list[PluginRecord]:
    """Return records of the plugins that are asked for and not installed.

    A plugin that is disabled need not be installed; one whose name is close to an installed one is misspelt.
    """
    installed = [each.name for each in found]
    missing: dict[str, str] = {}
    for wish in (*wanted.enabled, *wanted.required, *wanted.disabled):
        name = wish.partition("@")[0]
        if wish == EVERY_OTHER or any(matches(wish, each) for each in found):
            continue
        reason = explain_missing(name, installed)
        if wish not in wanted.disabled:
            missing.setdefault(name, reason)
        elif "did you mean" in reason:
            missing.setdefault(name, f"plugins.disabled names it, but {reason}")
    return [PluginRecord(name, status="error", reason=reason) for name, reason in missing.items()]


def _in_order(usable: list[EntryPoint], enabled: Sequence[str]) -> list[EntryPoint]:
    """Return the entry points in configured order; `*` stands for all that are not named, by name."""
    if not enabled:
        return usable
    ordered: list[EntryPoint] = []
    named = [each for each in usable if any(wish != EVERY_OTHER and matches(wish, each) for wish in enabled)]
    for wish in enabled:
        matching = [each for each in usable if each not in named] if wish == EVERY_OTHER else named
        ordered += [each for each in matching if matches(wish, each) and each not in ordered]
    return ordered


class _Single(ExtensionManager):  # type: ignore[misc]
    """A stevedore manager that loads one entry point and lets its exception through."""

    def __init__(self, entry_point: EntryPoint) -> None:
        self._entry_point = entry_point
        super().__init__(GROUP, on_load_failure_callback=_raise)

    def list_entry_points(self) -> list[EntryPoint]:
        return [self._entry_point]


def _raise(_manager: object, _entry_point: object, error: BaseException) -> None:
    raise error


def load_plugin(entry_point: EntryPoint, manager: pluggy.PluginManager) -> tuple[PluginRecord, object | None]:
    """Import one plugin. Return its record, and the plugin if it can be registered. Log tracebacks at DEBUG."""
    if not _NAME.fullmatch(entry_point.name):
        return _record(
            entry_point, "error", "the name of a plugin is a lower-case letter, then letters, digits and underscores"
        ), None
    try:
        plugin: Any = _Single(entry_point).extensions[0].plugin
        if isinstance(plugin, type):
            plugin = plugin()
        hooks = hooks_of(plugin, manager)
    except SkipPlugin as skip:
        return _record(entry_point, "skipped", str(skip)), None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an import does, the others go on
        logger.opt(exception=error).debug("plugin {name} cannot be loaded", name=entry_point.name)
        return _record(entry_point, "error", _explain_failure(entry_point, error), error), None
    return msgspec.structs.replace(_record(entry_point), hooks=hooks), plugin


def _explain_failure(entry_point: EntryPoint, error: BaseException) -> str:
    if isinstance(error, PluginError | ContractError):
        return str(error)
    if isinstance(error, ImportError):
        distribution = distribution_of(entry_point) or entry_point.name
        return f"import failed: {describe_error(error)}; reinstall {distribution}"
    return f"loading failed: {describe_error(error)}"


def hooks_of(plugin: object, manager: pluggy.PluginManager) -> tuple[str, ...]:
    """Return the hooks that `plugin` implements. Raises ContractError if it implements none, or wrongly.

    A plugin that only declares `Options`, for a command of its own, is fine. `manager` knows the hooks.
    """
    declared = declared_options(plugin)
    implemented: list[str] = []
    unmarked: list[str] = []
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is not None:
            hook = options.get("specname") or name
            if hasattr(manager.hook, hook):
                _check_arguments(getattr(plugin, name), hook, manager, declared is not None)
                implemented.append(hook)
            elif not options["optionalhook"]:
                unknown = f"it implements {hook}, a hook that this version of lazylayer does not have"
                raise ContractError(f"{unknown}; use a version of the plugin that fits", hook)
        elif name.startswith("lazylayer_") and hasattr(manager.hook, name):
            unmarked.append(name)
    if unmarked:
        raise ContractError(f"{', '.join(unmarked)}: not marked with lazylayer.hookimpl")
    if not implemented and declared is None:
        raise ContractError("it implements no hook of lazylayer")
    return tuple(sorted(implemented))


def _check_arguments(function: Any, hook: str, manager: pluggy.PluginManager, options: bool) -> None:
    known = getattr(manager.hook, hook).spec.argnames
    for argument in inspect.signature(function).parameters:
        if argument not in known:
            raise ContractError(f"{hook} does not take {argument}: the hook has ({', '.join(known)})", hook, argument)
        if argument == "options" and not options:
            raise ContractError(f"{hook} takes options, but the plugin declares none (Options)", hook, argument)


def _record(
    entry_point: EntryPoint, status: PluginStatus = "ok", reason: str = "", failure: BaseException | None = None
) -> PluginRecord:
    return PluginRecord(
        entry_point.name,
        distribution_of(entry_point),
        version_of(entry_point),
        status,
        reason,
        target=entry_point.value,
        failure=failure,
    )
