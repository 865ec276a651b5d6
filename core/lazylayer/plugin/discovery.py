"""Find installed plugins by their entry points, choose the wanted ones and import them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import msgspec
import pluggy
from stevedore.extension import ExtensionManager

from lazylayer.errors import PluginError, SkipPlugin
from lazylayer.plugin.calling import describe_error
from lazylayer.plugin.options import declared_options
from lazylayer.plugin.records import PluginRecord, PluginStatus, distribution_hint

if TYPE_CHECKING:
    from lazylayer.api.settings import PluginsSettings

__all__ = ["GROUP", "find_entry_points"]

GROUP = "lazylayer.plugins"
"""The group of entry points that plugins are found in."""


_NAME = re.compile(r"[a-z][a-z0-9_]*")


_REST = "*"


def find_entry_points() -> list[EntryPoint]:
    """The entry points of all installed plugins, by name and distribution; imports none of them."""
    return sorted(entry_points(group=GROUP), key=lambda each: (each.name, _distribution(each)))


def explain_missing(name: str) -> str:
    return f"it is not installed; {distribution_hint(name)}"


def choose_entry_points(
    found: list[EntryPoint], wanted: PluginsSettings
) -> tuple[list[EntryPoint], list[PluginRecord]]:
    """Those to load, first asked first, and the records of all others."""
    refused: list[PluginRecord] = []
    left: list[EntryPoint] = []
    for each in found:
        reason = _why_disabled(each, wanted)
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


def _why_disabled(entry_point: EntryPoint, wanted: PluginsSettings) -> str:
    if any(_means(wish, entry_point) for wish in wanted.disabled):
        return "it is disabled: plugins.disabled names it"
    if wanted.enabled and not any(_means(wish, entry_point) for wish in wanted.enabled):
        return "it is disabled: plugins.enabled does not name it"
    # `name@distribution` chooses among several of one name, also beside `*`.
    pins = [wish for wish in wanted.enabled if wish.startswith(f"{entry_point.name}@")]
    if pins and not any(_means(pin, entry_point) for pin in pins):
        return f"it is disabled: plugins.enabled chooses {pins[0]}"
    return ""


def _means(wish: str, entry_point: EntryPoint) -> bool:
    if wish in (entry_point.name, _REST):
        return True
    name, at, distribution = wish.partition("@")
    return (
        bool(at) and name == entry_point.name and _normalized(distribution) == _normalized(_distribution(entry_point))
    )


def _explain_duplicate(name: str, found: list[EntryPoint]) -> str:
    rivals = [each for each in found if each.name == name]
    offers = ", ".join(f"{_distribution(each)} {_version(each)}" for each in rivals)
    return (
        f"{len(rivals)} distributions offer a plugin of this name: {offers}; "
        f'uninstall all but one, or choose one with plugins.enabled = ["{name}@{_distribution(rivals[0])}", "*"]'
    )


def _missing(found: list[EntryPoint], wanted: PluginsSettings) -> list[PluginRecord]:
    missing: dict[str, PluginRecord] = {}
    for wish in (*wanted.enabled, *wanted.required):
        name = wish.partition("@")[0]
        if wish != _REST and not any(_means(wish, each) for each in found):
            missing.setdefault(name, PluginRecord(name, status="error", reason=explain_missing(name)))
    return list(missing.values())


def _in_order(usable: list[EntryPoint], enabled: Sequence[str]) -> list[EntryPoint]:
    """In the order of the configuration; `*` stands for all that it does not name, by name."""
    if not enabled:
        return usable
    ordered: list[EntryPoint] = []
    named = [each for each in usable if any(wish != _REST and _means(wish, each) for wish in enabled)]
    for wish in enabled:
        matching = [each for each in usable if each not in named] if wish == _REST else named
        ordered += [each for each in matching if _means(wish, each) and each not in ordered]
    return ordered


class _Single(ExtensionManager):  # type: ignore[misc]
    """stevedore, told which entry point to load, and to let its exception out."""

    def __init__(self, entry_point: EntryPoint) -> None:
        self._entry_point = entry_point
        super().__init__(GROUP, on_load_failure_callback=_raise)

    def list_entry_points(self) -> list[EntryPoint]:
        return [self._entry_point]


def _raise(_manager: object, _entry_point: object, error: BaseException) -> None:
    raise error


def load_plugin(entry_point: EntryPoint, manager: pluggy.PluginManager) -> tuple[PluginRecord, object | None]:
    """Imports one plugin. Returns its record, and the plugin if it can be registered."""
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
    except PluginError as error:
        return _record(entry_point, "error", str(error)), None
    except ImportError as error:
        reason = f"import failed: {describe_error(error)}; reinstall {_distribution(entry_point) or entry_point.name}"
        return _record(entry_point, "error", reason), None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an import does, the others go on
        return _record(entry_point, "error", f"loading failed: {describe_error(error)}"), None
    return msgspec.structs.replace(_record(entry_point), hooks=hooks), plugin


def hooks_of(plugin: object, manager: pluggy.PluginManager) -> tuple[str, ...]:
    """Return the hooks that `plugin` implements; raises if it implements none, or unknown ones.

    A plugin that only declares `Options`, for a command of its own, is fine. `manager` is one without
    plugins, and stays so.
    """
    declared = declared_options(plugin)
    implemented: list[str] = []
    unmarked: list[str] = []
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is not None:
            hook = options.get("specname") or name
            if hasattr(manager.hook, hook):
                implemented.append(hook)
            elif not options["optionalhook"]:
                raise TypeError(
                    f"it implements {hook}, a hook that this version of lazylayer does not have; "
                    "upgrade lazylayer, or use a version of the plugin that fits"
                )
        elif name.startswith("lazylayer_") and hasattr(manager.hook, name):
            unmarked.append(name)
    if unmarked:
        raise TypeError(f"{', '.join(unmarked)}: not marked with lazylayer.hookimpl")
    if not implemented and declared is None:
        raise TypeError("it implements no hook of lazylayer")
    manager.register(plugin)  # checks the arguments
    manager.unregister(plugin)
    return tuple(sorted(implemented))


def _record(entry_point: EntryPoint, status: PluginStatus = "ok", reason: str = "") -> PluginRecord:
    return PluginRecord(
        entry_point.name,
        _distribution(entry_point),
        _version(entry_point),
        status,
        reason,
        target=entry_point.value,
    )


def _distribution(entry_point: EntryPoint) -> str:
    return (entry_point.dist.name or "") if entry_point.dist is not None else ""


def _version(entry_point: EntryPoint) -> str:
    return (entry_point.dist.version or "") if entry_point.dist is not None else ""


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
