"""Configure a plugin for a test as the core would, from a table of options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from lazylayer.api.settings import Settings
from lazylayer.errors import SkipPlugin
from lazylayer.plugin.records import PluginRecord
from lazylayer.plugin.registry import Plugins

__all__ = ["configured"]

Plugin = TypeVar("Plugin")


def configured(
    plugin: Plugin,
    name: str,
    table: Mapping[str, object] | None = None,
    settings: Settings | None = None,
    **tables: Any,
) -> Plugin:
    """Return `plugin`, configured with the table `[plugin.NAME]`.

    :param settings: the core's settings; the defaults if None.
    :param tables: top-level tables that the plugin reads, as `resolver={…}`.

    Raises ConfigurationError, SkipPlugin, or RuntimeError for any other failure, as the plugin did.
    """
    plugins = Plugins([PluginRecord(name)], {name: plugin})
    plugins.configure(settings or Settings(), {"plugin": {name: dict(table)} if table else {}, **tables})
    for refusal in plugins.refusals:
        raise refusal
    record = plugins.record(name)
    assert record is not None
    if record.status == "skipped":
        raise SkipPlugin(record.reason)
    if record.status == "error":
        raise RuntimeError(record.reason)
    return plugin
