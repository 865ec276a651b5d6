"""Finds the plugins, loads those that the configuration wants, and keeps a record of each.

stevedore loads what the entry points of the group `lazylayer.plugins` lead to; pluggy gets it
registered. Which plugins there are is read from the metadata of installed distributions each time,
and not through stevedore's cache on disk, which misses what was installed in the last two minutes
and forgets the distribution. A plugin that cannot be used is recorded with the reason and takes
nothing else down.

Two steps: `Plugins.load` imports and checks, `Plugins.configure` gives the plugins their options.
Both belong to the start-up and to its thread; afterwards everything here may be read from any thread.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pluggy
from stevedore.extension import ExtensionManager

from lazylayer import hookspecs
from lazylayer.errors import ConfigurationError, PluginError, PluginRequiredError, SkipPlugin
from lazylayer.hooks import Hooks, distribution_hint

if TYPE_CHECKING:
    from lazylayer.settings import PluginsSettings, Settings

__all__ = ["GROUP", "PluginRecord", "PluginStatus", "Plugins", "find_entry_points", "make_manager"]

GROUP = "lazylayer.plugins"
"""The group of entry points that plugins are found in."""

PluginStatus = Literal["ok", "disabled", "skipped", "error"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_REST = "*"


class PluginRecord(msgspec.Struct, frozen=True):
    """What is known of one plugin: an installed one, or one that the configuration asks for.

    `hooks` are the hooks that it implements, empty unless it was loaded. `reason` says why it is not
    `ok`, and what would help. `target` is the value of its entry point, `package:Class`.
    """

    name: str
    distribution: str = ""
    version: str = ""
    status: PluginStatus = "ok"
    reason: str = ""
    hooks: tuple[str, ...] = ()
    target: str = ""


def make_manager() -> pluggy.PluginManager:
    """A plugin manager that knows the hooks of lazylayer and has no plugin yet.

    For programs and tests with plugins of their own: register them and pass it to `Hooks`.
    """
    manager = pluggy.PluginManager("lazylayer")
    manager.add_hookspecs(hookspecs)
    return manager


def find_entry_points() -> list[EntryPoint]:
    """The entry points of all installed plugins, by name and distribution; imports none of them."""
    return sorted(entry_points(group=GROUP), key=lambda each: (each.name, _distribution(each)))


class Plugins:
    """The plugins of one program, in the order in which they are asked."""

    def __init__(self, records: Iterable[PluginRecord], loaded: Mapping[str, object]) -> None:
        self._records = list(records)
        self._loaded = dict(loaded)
        self._by_name = {record.name: record for record in reversed(self._records)}
        self.manager = make_manager()
        self.refusals: list[ConfigurationError] = []
        """What plugins said against their options, in the order in which they are asked."""

    @classmethod
    def load(cls, wanted: PluginsSettings) -> Plugins:
        """Imports the wanted plugins. Never raises for a plugin: see `records`."""
        chosen, refused = _choose(find_entry_points(), wanted)
        loaded: dict[str, object] = {}
        records: list[PluginRecord] = []
        manager = make_manager()
        for entry_point in chosen:
            record, plugin = _load(entry_point, manager)
            records.append(record)
            if plugin is not None:
                loaded[record.name] = plugin
        return cls(records + refused, loaded)

    @property
    def records(self) -> Sequence[PluginRecord]:
        """All plugins: those asked first come first, then those that are not wanted or not there."""
        return tuple(self._records)

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that plugins were imported from, for logging."""
        return tuple(sorted({_package(record.target) for record in self._records if record.name in self._loaded}))

    def record(self, name: str) -> PluginRecord | None:
        """What is known of plugin `name`, or None if it is not installed."""
        return self._by_name.get(name)

    def hooks(self) -> Hooks:
        """The façade through which these plugins are asked; it follows later changes."""
        return Hooks(self.manager, self._by_name)

    def command_hooks(self) -> Hooks:
        """A façade to plugins that were not configured: all that `lazylayer --help` needs."""
        manager = make_manager()
        for name in reversed(self._loaded):
            manager.register(self._loaded[name], name)
        return Hooks(manager, self._by_name)

    def configure(self, settings: Settings) -> None:
        """Gives every loaded plugin its options and registers it, so that its hooks are called.

        A plugin that says SkipPlugin, or fails, is recorded and left out. What plugins say against
        their options is in `refusals` too, for the caller to raise.
        """
        tables = _WatchedTables(settings.plugin)
        # Historic: who is registered from here on is configured by that.
        watched = msgspec.structs.replace(settings, plugin=tables)
        self.manager.hook.lazylayer_configure.call_historic(kwargs={"settings": watched})
        for name in reversed(self._loaded):  # pluggy asks first who was registered last
            self.add(name, self._loaded[name])
        self.refusals.reverse()
        for name in sorted(tables.keys() - tables.seen):
            self._explain_unused_table(name)

    def _explain_unused_table(self, name: str) -> None:
        record = self._by_name.get(name)
        if record is None:
            near = get_close_matches(name, self._by_name, 1)
            hint = f"did you mean [plugin.{near[0]}]?" if near else distribution_hint(name)
            reason = f"there are options for it, [plugin.{name}], but it is not installed; {hint}"
            self._remember(PluginRecord(name, status="error", reason=reason))
        elif record.status == "ok":
            key = f"plugin.{name}"
            self.refusals.append(ConfigurationError(f"{key}: the plugin {name} takes no options", key=key))

    def add(self, name: str, plugin: object) -> None:
        """Registers and configures one more plugin, which is then asked first.

        For programs that bring plugins of their own, after `configure`. Raises nothing: see `record`.
        """
        try:
            if name not in self._by_name:
                self._remember(PluginRecord(name))
                self._change(name, hooks=_hooks_of(plugin, make_manager()))
            self.manager.register(plugin, name)
            return
        except SkipPlugin as skip:
            self._change(name, status="skipped", reason=str(skip))
        except ConfigurationError as error:
            self.refusals.append(error)
            self._change(name, status="error", reason=str(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin raises, the others go on
            self._change(name, status="error", reason=_describe(error))
        if self.manager.has_plugin(name):
            self.manager.unregister(name=name)

    def require(self, name: str, by: str) -> None:
        """Raises PluginRequiredError unless plugin `name` is usable.

        :param by: who needs it, for the message: `cache.chunks`, say.
        """
        record = self._by_name.get(name)
        if record is not None and record.status == "ok":
            return
        problem = _not_installed(name) if record is None else record.reason
        raise PluginRequiredError(
            f"{by} asks for it, but {problem}",
            plugin=name,
            distribution=record.distribution if record is not None else "",
            version=record.version if record is not None else "",
        )

    def _remember(self, record: PluginRecord) -> None:
        self._records.append(record)
        self._by_name[record.name] = record

    def _change(self, name: str, **changes: Any) -> None:
        old = self._by_name[name]
        new = msgspec.structs.replace(old, **changes)
        self._records[self._records.index(old)] = new
        self._by_name[name] = new


class _WatchedTables(dict[str, dict[str, Any]]):
    """The tables `[plugin.NAME]`, remembering which of them a plugin looked at."""

    def __init__(self, tables: Mapping[str, dict[str, Any]]) -> None:
        super().__init__(tables)
        self.seen: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.seen.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> dict[str, Any]:
        self.seen.add(name)
        return super().__getitem__(name)


def _not_installed(name: str) -> str:
    return f"it is not installed; {distribution_hint(name)}"


# --- choosing -------------------------------------------------------------------------------------


def _choose(found: list[EntryPoint], wanted: PluginsSettings) -> tuple[list[EntryPoint], list[PluginRecord]]:
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
            missing.setdefault(name, PluginRecord(name, status="error", reason=_not_installed(name)))
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


# --- loading --------------------------------------------------------------------------------------


class _Single(ExtensionManager):  # type: ignore[misc]
    """stevedore, told which entry point to load, and to let its exception out."""

    def __init__(self, entry_point: EntryPoint) -> None:
        self._entry_point = entry_point
        super().__init__(GROUP, on_load_failure_callback=_raise)

    def list_entry_points(self) -> list[EntryPoint]:
        return [self._entry_point]


def _raise(_manager: object, _entry_point: object, error: BaseException) -> None:
    raise error


def _load(entry_point: EntryPoint, manager: pluggy.PluginManager) -> tuple[PluginRecord, object | None]:
    """Imports one plugin. Returns its record, and the plugin if it can be registered."""
    if not _NAME.fullmatch(entry_point.name):
        return _record(
            entry_point, "error", "the name of a plugin is a lower-case letter, then letters, digits and underscores"
        ), None
    try:
        plugin: Any = _Single(entry_point).extensions[0].plugin
        if isinstance(plugin, type):
            plugin = plugin()
        hooks = _hooks_of(plugin, manager)
    except SkipPlugin as skip:
        return _record(entry_point, "skipped", str(skip)), None
    except PluginError as error:
        return _record(entry_point, "error", str(error)), None
    except ImportError as error:
        reason = f"import failed: {_describe(error)}; reinstall {_distribution(entry_point) or entry_point.name}"
        return _record(entry_point, "error", reason), None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an import does, the others go on
        return _record(entry_point, "error", f"loading failed: {_describe(error)}"), None
    return msgspec.structs.replace(_record(entry_point), hooks=hooks), plugin


def _hooks_of(plugin: object, manager: pluggy.PluginManager) -> tuple[str, ...]:
    """The hooks that `plugin` implements; raises if it has none, or some that we do not know.

    `manager` is one without plugins, and stays so.
    """
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
    if not implemented:
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


def _package(target: str) -> str:
    return target.partition(":")[0].partition(".")[0]


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
