"""Load the plugins that the configuration wants, give them their options, and keep a record of each.

stevedore loads the entry points of the group `lazylayer.plugins`, and pluggy registers the plugins.
Entry points are read from the metadata of installed distributions each time: stevedore's cache on disk
misses distributions installed in the last two minutes. A plugin that cannot be used is recorded with the
reason, and the others are used.

`Plugins.load` imports and checks; `Plugins.configure` passes options. Call both at start-up, in one
thread. Afterwards, any thread may read everything here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from lazylayer.api.settings import Settings
from lazylayer.errors import ConfigurationError, PluginRequiredError, SkipPlugin
from lazylayer.plugin.calling import describe_error, make_manager
from lazylayer.plugin.discovery import choose_entry_points, hooks_of, load_plugin
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.options import declared_options, read_options
from lazylayer.plugin.records import ContractError, PluginRecord
from lazylayer.plugin.selection import explain_missing, find_entry_points

if TYPE_CHECKING:
    from lazylayer.api.settings import PluginsSettings

__all__ = ["Plugins", "make_manager"]


class Plugins:
    """The plugins of one program, in the order in which they are asked."""

    def __init__(self, records: Iterable[PluginRecord], loaded: Mapping[str, object]) -> None:
        self._records = list(records)
        self._loaded = dict(loaded)
        self._by_name = {record.name: record for record in reversed(self._records)}
        self.manager = make_manager()
        self._scratch = make_manager()
        """Holds a plugin only while that is checked or configured."""
        self._settings = Settings()
        self._tables: Mapping[str, Any] = {}
        self.refusals: list[ConfigurationError] = []
        """The complaints of plugins about their options, in the order of asking."""

    @classmethod
    def load(cls, wanted: PluginsSettings) -> Plugins:
        """Import the wanted plugins. Never raises for a plugin: see `records`."""
        chosen, refused = choose_entry_points(find_entry_points(), wanted)
        loaded: dict[str, object] = {}
        records: list[PluginRecord] = []
        manager = make_manager()
        for entry_point in chosen:
            record, plugin = load_plugin(entry_point, manager)
            records.append(record)
            if plugin is not None:
                loaded[record.name] = plugin
        return cls(records + refused, loaded)

    @property
    def records(self) -> Sequence[PluginRecord]:
        """All plugins: the loaded ones in the order of asking, then disabled and missing ones."""
        return tuple(self._records)

    def record(self, name: str) -> PluginRecord | None:
        """Return the record of plugin `name`, or None if it is not installed."""
        return self._by_name.get(name)

    def hooks(self) -> Hooks:
        """Return the façade through which these plugins are called; it follows later changes."""
        return Hooks(self.manager, self._by_name)

    def configure(self, settings: Settings, tables: Mapping[str, Any] | None = None) -> None:
        """Give every loaded plugin its options and register it, so that its hooks are called.

        A plugin that raises SkipPlugin, or fails, is recorded and left out. Complaints of plugins about
        their options are in `refusals` too, for the caller to raise.

        :param tables: the tables of plugins, nested as in TOML: `{"plugin": {NAME: {…}}}`.
        """
        self._settings, self._tables = settings, tables or {}
        for name in reversed(self._loaded):  # pluggy asks first the plugin that was registered last
            self.add(name, self._loaded[name])
        self.refusals.reverse()
        for name in sorted(self._tables.get("plugin", {}).keys() - self._loaded.keys()):
            self._explain_unused_table(name)

    def _explain_unused_table(self, name: str) -> None:
        if name not in self._by_name:
            reason = f"[plugin.{name}] sets options for it, but {explain_missing(name, self._by_name)}"
            self._remember(PluginRecord(name, status="error", reason=reason))

    def add(self, name: str, plugin: object) -> None:
        """Configure and register one more plugin, which is then asked first.

        For programs that bring plugins of their own, after `configure`. Raises nothing: see `record`.
        """
        try:
            if name not in self._by_name:
                self._remember(PluginRecord(name))
                self._change(name, hooks=hooks_of(plugin, self._scratch))
            preference = getattr(plugin, "preference", 0)
            self._change(name, options=self._read_options(name, plugin), preference=preference)
            self._configure(name, plugin)
            self.manager.register(plugin, name)
        except SkipPlugin as skip:
            self._change(name, status="skipped", reason=str(skip))
        except ConfigurationError as error:
            self.refusals.append(error)
            self._change(name, status="error", reason=str(error))
        except ContractError as error:
            self._change(name, status="error", reason=str(error), failure=error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the other plugins are used
            self._change(name, status="error", reason=describe_error(error), failure=error)

    def _read_options(self, name: str, plugin: object) -> msgspec.Struct | None:
        options = declared_options(plugin)
        if options is not None:
            return read_options(self._tables, name, options, getattr(plugin, "options_table", ""))
        if name in self._tables.get("plugin", {}):
            key = f"plugin.{name}"
            raise ConfigurationError(f"{key}: the plugin {name} takes no options", key=key)
        return None

    def _configure(self, name: str, plugin: object) -> None:
        """Call the plugin's `lazylayer_configure`; its exceptions go up as they are."""
        self._scratch.register(plugin, name)
        try:
            for each in self._scratch.hook.lazylayer_configure.get_hookimpls():
                given = {"settings": self._settings, "options": self._by_name[name].options}
                each.function(*[given[argument] for argument in each.argnames])
        finally:
            self._scratch.unregister(name=name)

    def plugin(self, name: str) -> object | None:
        """Return the plugin `name`, or None if it was not loaded."""
        return self._loaded.get(name)

    def require(self, name: str, by: str) -> None:
        """Raise PluginRequiredError unless plugin `name` is usable.

        :param by: the setting that names it, for the message, such as `cache.chunks`.
        """
        record = self._by_name.get(name)
        if record is not None and record.status == "ok":
            return
        problem = explain_missing(name, self._by_name) if record is None else record.reason
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
