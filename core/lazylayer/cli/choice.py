"""Read quickly which plugins `[plugins]` allows: all of the configuration that `lazylayer --help` needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lazylayer.configuration.files import find_files, read_files
from lazylayer.configuration.layers import Setting
from lazylayer.errors import ConfigurationError

__all__ = ["PluginChoice", "load_plugin_choice"]

_KEYS = ("enabled", "disabled")


class PluginChoice(NamedTuple):
    """The settings `plugins.enabled` and `plugins.disabled`."""

    enabled: tuple[str, ...] = ()
    disabled: tuple[str, ...] = ()


def load_plugin_choice(config: Path | None = None, overrides: Sequence[str] = ()) -> PluginChoice:
    """Return the choice that the configuration makes.

    Reads the other settings only if variables or `--set` take part.
    Parameters and errors as in `lazylayer.configuration.loading.load_configuration`.
    """
    if overrides or any(name.upper().startswith("LAZYLAYER_PLUGINS") for name in os.environ):
        from lazylayer.configuration.loading import load_configuration

        plugins = load_configuration(config, overrides).settings.plugins
        return PluginChoice(plugins.enabled, plugins.disabled)
    chosen: dict[str, tuple[str, ...]] = {}
    for setting in read_files(find_files(config)):
        if setting.path[0] == "plugins" and setting.path[-1] in _KEYS:
            chosen[setting.path[-1]] = _read_names(setting)
    return PluginChoice(**chosen)


def _read_names(setting: Setting) -> tuple[str, ...]:
    value = setting.value
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        key = ".".join(setting.path)
        raise ConfigurationError(f'{setting.origin}: {key}: expected an array of strings, ["cache_dir"]', key=key)
    return tuple(value)
