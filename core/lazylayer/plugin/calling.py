"""Call hooks through pluggy, check the answers, and name the plugin that failed.

There are three patterns: `first` asks plugins in order until one answers, `every` calls all of them
separately, and `one` asks a single plugin by name. `ANSWERS` holds the type of every hook's answer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any

import pluggy

from lazylayer.api import hookspecs
from lazylayer.errors import LazylayerError, PluginError, SkipPlugin
from lazylayer.logger import logger
from lazylayer.plugin.records import PluginRecord
from lazylayer.plugin.selection import explain_missing

__all__ = ["ANSWERS", "Calls", "PluginManager", "make_manager"]

ANSWERS: dict[str, tuple[str, ...]] = {
    "lazylayer_resolve_image": ("lazylayer.api.oci:ResolvedImage",),
    "lazylayer_resolve_blob": ("lazylayer.api.sources:BlobSource",),
    "lazylayer_get_credentials": ("lazylayer.api.credentials:Credentials",),
    "lazylayer_open_cache": ("lazylayer.api.cache:Cache",),
    "lazylayer_describe_format": ("lazylayer.api.layers:FormatInfo",),
    "lazylayer_annotate_layers": ("collections.abc:Mapping",),
    "lazylayer_open_layer": ("lazylayer.api.layers:LayerContents",),
    "lazylayer_layer_opened": ("lazylayer.api.layers:Locality",),
    "lazylayer_plan_prefetch": ("lazylayer.api.layers:PrefetchPlan",),
    "lazylayer_probe_frontend": ("lazylayer.api.mounting:Works", "lazylayer.api.mounting:Missing"),
    "lazylayer_mount_tree": ("lazylayer.api.mounting:MountedTree",),
    "lazylayer_recognize_mount": ("lazylayer.api.mounting:LeftMount",),
    "lazylayer_add_virtual_entries": ("collections.abc:Mapping",),
}
"""The types that a hook may return, as `module:name`. Hooks that return nothing are not listed."""

HOOKSPECS_GROUP = "lazylayer.hookspecs"
"""The group of entry points that names modules with further hooks, and their `ANSWERS`."""


def make_manager() -> PluginManager:
    """Return a plugin manager that knows the hooks of lazylayer and of `HOOKSPECS_GROUP`, and has no plugin yet.

    For programs and tests with plugins of their own: register them and pass the manager to `Hooks`.
    """
    manager = PluginManager("lazylayer")
    for module in (*hookspecs.MODULES, *_further_hookspecs()):
        manager.add_hookspecs(module)
    return manager


@functools.cache
def _further_hookspecs() -> list[Any]:
    modules = []
    for each in entry_points(group=HOOKSPECS_GROUP):
        try:
            modules.append(each.load())
            ANSWERS.update(modules[-1].ANSWERS)
        except Exception as error:  # noqa: BLE001 - plugins with these hooks are left out, the others are used
            logger.warning("hooks of {module} are unknown: {error!r}", module=each.value, error=error)
    return modules


class Failure(Exception):  # noqa: N818 - it never leaves this room
    """A hook failed: it raised an exception, or returned the wrong type."""

    def __init__(self, plugin: str, said: str, cause: Exception | None = None) -> None:
        super().__init__(said)
        self.plugin = plugin
        self.cause = cause


class PluginManager(pluggy.PluginManager):
    """pluggy's manager, which also knows which plugin raised an exception or gave a wrong answer."""

    def register(self, plugin: object, name: str | None = None) -> str | None:
        """Register a plugin under `name`; see pluggy."""
        registered = super().register(plugin, name)
        for caller in self.get_hookcallers(plugin) or ():
            for each in caller.get_hookimpls() if caller.name != "lazylayer_configure" else ():
                if each.plugin is plugin and not each.wrapper and not each.hookwrapper:
                    each.function = _guarded(caller.name, each)  # type: ignore[misc]
        return registered


def _guarded(hook: str, implementation: pluggy.HookImpl) -> Any:
    """Return the implementation's function; it raises Failure instead of what is not a LazylayerError."""
    function, plugin = implementation.function, implementation.plugin_name

    def call(*arguments: object) -> object:
        try:
            answer = function(*arguments)
        except LazylayerError:
            raise
        except SkipPlugin as error:
            raise Failure(plugin, f"it cannot be used here: {error}", error) from error
        except Exception as error:
            raise Failure(plugin, describe_error(error), error) from error
        if answer is None or hook not in ANSWERS or isinstance(answer, tuple(map(resolve_name, ANSWERS[hook]))):
            return answer
        raise _wrong_answer(plugin, hook, type(answer).__name__)

    return call


def _wrong_answer(plugin: str, hook: str, returned: str) -> Failure:
    expected = " or ".join(each.replace(":", ".").removeprefix("builtins.") for each in ANSWERS[hook])
    return Failure(plugin, f"it returned {returned}; expected {expected}")


class Calls:
    """The calls to one manager's plugins. All methods may be called from any thread.

    :param records: what is known of each plugin by name, for messages.
    """

    def __init__(self, manager: pluggy.PluginManager, records: Mapping[str, PluginRecord]) -> None:
        self._manager = manager
        self._records = records
        self._logged: set[tuple[str, str]] = set()

    def first(self, hook: str, **arguments: object) -> Any:
        """Return the first answer that is not None, in the order of asking; None if there is none.

        Raises the LazylayerError of a plugin as it is, and PluginError for any other failure.
        """
        logger.trace("asking {hook}", hook=hook)
        try:
            return getattr(self._manager.hook, hook)(**arguments)
        except LazylayerError:
            raise
        except Failure as failure:
            raise self.error(hook, failure) from failure.cause
        except Exception as error:  # from a wrapper, which pluggy does not name
            wrappers = [each.plugin_name for each in self._all(hook) if each.wrapper or each.hookwrapper]
            raise self.error(hook, Failure(" or ".join(wrappers), describe_error(error))) from error

    def every(self, hook: str, *, log_once: bool = False, **arguments: object) -> Iterator[tuple[str, Any]]:
        """Call all plugins in the order of asking, and yield the name and answer of each.

        A plugin that fails is logged and passed over; with `log_once` only its first failure is logged.
        """
        logger.trace("telling {hook}", hook=hook)
        for each in self.implementations(hook):
            plugin = each.plugin_name
            try:
                answer = _call(each, arguments)
            except Exception as error:  # noqa: BLE001 - the others are called all the same
                if not log_once or (plugin, hook) not in self._logged:
                    self._logged.add((plugin, hook))
                    self.log_failure(plugin, hook, error)
            else:
                yield plugin, answer

    def one(self, plugin: str, hook: str, **arguments: object) -> Any:
        """Return the answer of one plugin, which must have the hook: see `why_not`. Raises as `first` does."""
        logger.trace("asking {plugin}: {hook}", plugin=plugin, hook=hook)
        (implementation,) = [each for each in self.implementations(hook) if each.plugin_name == plugin]
        try:
            answer = _call(implementation, arguments)
        except Failure as failure:
            raise self.error(hook, failure) from failure.cause
        if answer is None and hook in ANSWERS:
            raise self.error(hook, _wrong_answer(plugin, hook, "nothing"))
        return answer

    def implementations(self, hook: str) -> list[pluggy.HookImpl]:
        """Return the implementations of a hook in the order of asking, without wrappers."""
        return [each for each in self._all(hook) if not each.wrapper and not each.hookwrapper]

    def _all(self, hook: str) -> list[pluggy.HookImpl]:
        return list(reversed(getattr(self._manager.hook, hook).get_hookimpls()))

    # --- explaining --------------------------------------------------------------------------------

    def asked(self, hook: str) -> str:
        """Return which plugins have a hook, in words."""
        names = [each.plugin_name for each in self.implementations(hook)]
        return f"asked: {', '.join(names)}" if names else f"no installed plugin has {hook}"

    def unusable(self) -> str:
        """Return which plugins cannot be asked and why, in words; empty if there are none."""
        return ", ".join(f"{each.name} ({each.reason})" for each in self._records.values() if each.reason)

    def why_not(self, plugin: str, hook: str) -> str:
        """Return why a plugin cannot be asked by name, and what to do; empty if it can."""
        if any(each.plugin_name == plugin for each in self.implementations(hook)):
            return ""
        record = self._records.get(plugin)
        if record is not None and record.reason:
            return record.reason
        if record is not None or self._manager.has_plugin(plugin):
            return f"it does not have the hook {hook} ({self.asked(hook)})"
        return f"{explain_missing(plugin, self._records)} ({self.asked(hook)})"

    def error(self, hook: str, failure: Failure) -> PluginError:
        """Return the error for a failure; it names plugin, version and hook."""
        record = self._records.get(failure.plugin)
        distribution, version = (record.distribution, record.version) if record is not None else ("", "")
        return PluginError(str(failure), plugin=failure.plugin, distribution=distribution, version=version, hook=hook)

    def log_failure(self, plugin: str, hook: str, error: Exception) -> None:
        """Log a failure that stops nothing."""
        cause = error.cause or error if isinstance(error, Failure) else error
        said = str(error) if isinstance(error, LazylayerError | Failure) else describe_error(error)
        logger.warning("{failure}", failure=str(self.error(hook, Failure(plugin, said))))
        logger.opt(exception=cause).debug("plugin {plugin} failed here", plugin=plugin)


def _call(implementation: pluggy.HookImpl, arguments: Mapping[str, object]) -> Any:
    return implementation.function(*[arguments[name] for name in implementation.argnames])


def describe_error(error: BaseException) -> str:
    """Return the type and text of an error, for a message."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
