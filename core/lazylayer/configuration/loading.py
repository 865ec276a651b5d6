"""Load the configuration: merge files, environment and command line into one `Settings`.

The layers, each overriding the ones before it:

1. the defaults in `lazylayer.api.settings`;
2. `/etc/lazylayer/lazylayer.toml`, or the file that `--config` names, which must exist;
3. `conf.d/*.toml` next to it, in order of their names;
4. the environment: `LAZYLAYER_CACHE__CHUNKS` sets `cache.chunks`;
5. `--set cache.chunks=cache_dir`.

Tables are merged key by key; lists and single values are replaced. In the environment and in `--set`,
values are TOML. A value that is not TOML is text, and so is every unquoted value of a core key that takes
text. Unknown keys and wrong types are errors that name the key and its origin.

`lazylayer.configuration.layers` merges the layers. Nothing here runs after the start-up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from lazylayer.api.settings import Settings
from lazylayer.api.units import explain_value, type_at, with_units
from lazylayer.configuration.files import find_files, read_files
from lazylayer.configuration.layers import KeyPath, Setting, dotted, leaves, merge_settings, parse_key, read_text
from lazylayer.errors import ConfigurationError, LazylayerError

__all__ = ["ENVIRONMENT_PREFIX", "Configuration", "find_mistakes", "load_configuration", "read_settings"]

ENVIRONMENT_PREFIX = "LAZYLAYER_"
DEFAULT_ORIGIN = "default"

_LONGEST_VALUE = 60
"""Characters of a rejected value that its message shows."""

TABLES_GROUP = "lazylayer.tables"
"""The group of entry points that names the top-level tables of plugins, beside `[plugin.NAME]`."""


class Configuration:
    """The settings, the tables of plugins, and the origin of each value."""

    def __init__(
        self,
        settings: Settings,
        origins: Mapping[KeyPath, str],
        files: Sequence[Path],
        plugin_tables: Mapping[str, Any],
    ) -> None:
        self.settings = settings
        self.plugin_tables = plugin_tables
        """The tables that plugins read, unchecked and nested as in TOML: `{"plugin": {NAME: {…}}}`."""
        self.files = tuple(files)
        """The files that were read; later ones override earlier ones."""
        self._origins = origins

    def origin(self, path: KeyPath) -> str:
        """Return the origin of a key's value: a file, a variable, `--set` or `default`.

        The origin of a table is that of its first value.
        """
        for length in range(len(path), 0, -1):
            if path[:length] in self._origins:
                return self._origins[path[:length]]
        below = (origin for each, origin in self._origins.items() if each[: len(path)] == path)
        return next(below, DEFAULT_ORIGIN)

    def located(self, error: ConfigurationError) -> ConfigurationError:
        """Return the error with the origin of its key, if that is known."""
        origin = self.origin(parse_key(error.key)) if error.key else DEFAULT_ORIGIN
        if origin == DEFAULT_ORIGIN or str(error).startswith(origin):
            return error
        return ConfigurationError(f"{origin}: {error}", key=error.key)


def load_configuration(
    config: Path | None = None, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Configuration:
    """Read and merge all layers.

    :param config: the configuration file; None for the default one, if it exists.
    :param overrides: `KEY=VALUE`, as given with `--set`.
    :param environment: the environment variables, by default those of the process.

    Raises ConfigurationError with the first mistake.
    """
    files = find_files(config)
    settings = read_settings(files, overrides, environment)
    problems = find_mistakes(settings)
    if problems:
        more = f" (and {len(problems) - 1} more: see `lazylayer config check`)" if len(problems) > 1 else ""
        raise ConfigurationError(f"{problems[0]}{more}", key=problems[0].key)
    merged, origins = merge_settings(settings)
    plugin_tables = {key: merged.pop(key) for key in merged.keys() - set(Settings.__struct_encode_fields__)}
    configuration = Configuration(
        msgspec.convert(with_units(merged, Settings), Settings), origins, files, plugin_tables
    )
    for problem in _contradictions(configuration.settings):
        raise configuration.located(problem)
    return configuration


# --- the layers -----------------------------------------------------------------------------------


def read_settings(
    files: Iterable[Path], overrides: Sequence[str], environment: Mapping[str, str] | None
) -> list[Setting]:
    """Return what every layer sets, the weakest first. Parameters and errors as in `load_configuration`."""
    variables = os.environ if environment is None else environment
    return [*read_files(files), *_from_environment(variables), *_from_overrides(overrides)]


def _from_environment(environment: Mapping[str, str]) -> Iterator[Setting]:
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX):
            path = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            yield Setting(path, _read(path, environment[name]), f"environment variable {name}")


def _from_overrides(overrides: Sequence[str]) -> Iterator[Setting]:
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise ConfigurationError(f"--set {override}: expected KEY=VALUE, as in cache.chunks=cache_dir")
        try:
            path = parse_key(key.strip())
        except ValueError:
            raise ConfigurationError(f"--set {override}: {key.strip()} is not a key") from None
        yield Setting(path, _read(path, value.strip()), f"--set {key.strip()}")


def _read(path: KeyPath, text: str) -> Any:
    return text if type_at(Settings, path) is str and text[:1] not in ("'", '"') else read_text(text)


# --- checking -------------------------------------------------------------------------------------


def find_mistakes(settings: Iterable[Setting]) -> list[ConfigurationError]:
    """Return the mistakes in single settings, overridden ones too."""
    return [
        ConfigurationError(f"{setting.origin}: {said}", key=dotted(setting.path))
        for setting in settings
        if (said := _problem(setting))
    ]


def _problem(setting: Setting) -> str:
    """Return the mistake in a single setting; empty if there is none."""
    key = dotted(setting.path)
    if setting.path[0] == "plugin":
        if len(setting.path) < 3 and not (len(setting.path) == 2 and isinstance(setting.value, Mapping)):
            return f"{key}: expected a table, [plugin.NAME]"
        return ""
    expected = type_at(Settings, setting.path)
    if expected is None and _is_plugin_table(setting.path[0]):
        return "" if len(setting.path) > 1 or setting.value == {} else f"{key}: expected a table, [{key}]"
    if expected is None:
        return f"unknown key {key}{_suggestion(key)}"
    if isinstance(expected, type) and issubclass(expected, msgspec.Struct):
        return "" if setting.value == {} else f"{key}: expected a table, [{key}]"
    try:
        msgspec.convert(with_units(setting.value, expected), expected)
    except msgspec.ValidationError as error:
        return f"{key}: {explain_value(expected, str(error))}, not {_shown(setting.value)}"
    return ""


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def _is_plugin_table(key: str) -> bool:
    """Return True if an installed plugin reads the top-level table `[key]`."""
    from importlib.metadata import entry_points

    return key in entry_points(group=TABLES_GROUP).names


def _suggestion(key: str) -> str:
    known = [dotted(path) for path, _ in leaves(msgspec.to_builtins(Settings()))]
    near = get_close_matches(key.lower(), known, 1, 0.75)
    if not near:
        last = key.rpartition(".")[2].lower()
        near = [each for each in known if each.rpartition(".")[2] == last]
    return f"; did you mean {near[0]}?" if near else "; see docs/configuration.md for all keys"


def _contradictions(settings: Settings) -> Iterator[ConfigurationError]:
    """Yield mistakes in the meaning of settings, and contradictions between them."""
    from lazylayer.api.oci import Platform

    if settings.fetch.window_min > settings.fetch.window_max:
        yield ConfigurationError(
            f"fetch.window_min ({settings.fetch.window_min}) is larger than "
            f"fetch.window_max ({settings.fetch.window_max})",
            key="fetch.window_min",
        )
    for key in ("root", "run"):
        if not Path(getattr(settings, key)).is_absolute():
            yield ConfigurationError(f"{key}: expected an absolute path, not {getattr(settings, key)!r}", key=key)
    if settings.resolve.platform:
        try:
            Platform.parse(settings.resolve.platform)
        except (LazylayerError, ValueError) as error:
            yield ConfigurationError(f"resolve.platform: {error}", key="resolve.platform")
