"""Loads the configuration: files, environment and command line become one `Settings`.

The layers, each stronger than the ones before it:

1. the defaults in `lazylayer.settings`;
2. `/etc/lazylayer/lazylayer.toml`, or the file that `--config` names, which must exist then;
3. `conf.d/*.toml` beside it, by name;
4. the environment: `LAZYLAYER_CACHE__CHUNKS` is `cache.chunks`;
5. `--set cache.chunks=cache_dir`.

Tables are merged key by key; lists and single values are replaced. In the environment and in
`--set` a value is written as in TOML; what is not TOML, and every value without quotes for a key of
the core that takes text, is text. Unknown keys and wrong types are errors that name the key and where it was set.

dynaconf keeps the layers and reads the values of 4 and 5. It is told where to look and never looks
by itself, since on its own it also reads `*.local.toml`, variables that begin with `DYNACONF_` and
files that a value names (`@read_file …`), and replaces whole tables. Nothing asks dynaconf after
the start-up.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lazylayer.errors import ConfigurationError, LazylayerError
from lazylayer.settings import PluginsSettings, Settings

__all__ = [
    "DEFAULT_FILE",
    "ENVIRONMENT_PREFIX",
    "Configuration",
    "check_configuration",
    "load_configuration",
    "load_plugin_choice",
]

DEFAULT_FILE = Path("/etc/lazylayer/lazylayer.toml")
ENVIRONMENT_PREFIX = "LAZYLAYER_"
DEFAULT_ORIGIN = "default"

MAX_FILE_SIZE = 4 * 1024 * 1024
"""Bytes. A larger file is not a configuration of ours."""

KeyPath = tuple[str, ...]

_ESCAPE = "\0"


class _Setting(NamedTuple):
    """One value that one layer sets. `text` is True for values that are yet to be read as TOML."""

    path: KeyPath
    value: Any
    origin: str
    text: bool = False


class Configuration:
    """The settings, and where each of them came from."""

    def __init__(self, settings: Settings, origins: Mapping[KeyPath, str], files: Sequence[Path]) -> None:
        self.settings = settings
        self.files = tuple(files)
        """The files that were read, weakest first."""
        self._origins = origins

    def origin(self, key: str) -> str:
        """Where the value of a key (`cache.chunks`) came from: a file, a variable, `--set` or `default`.

        For a table it is where the first of its values came from.
        """
        path = tuple(key.split("."))
        for length in range(len(path), 0, -1):
            if path[:length] in self._origins:
                return self._origins[path[:length]]
        below = (origin for each, origin in self._origins.items() if each[: len(path)] == path)
        return next(below, DEFAULT_ORIGIN)

    def values(self) -> Iterator[tuple[str, Any, str]]:
        """Every key with its value and origin: those of the core, then those of plugins' tables."""
        for path, value in _leaves(msgspec.to_builtins(self.settings)):
            if path != ("plugin",):
                yield ".".join(path), value, self.origin(".".join(path))

    def located(self, error: ConfigurationError) -> ConfigurationError:
        """The error with the place where its key was set, as far as that is known."""
        origin = self.origin(error.key) if error.key else DEFAULT_ORIGIN
        if origin == DEFAULT_ORIGIN or str(error).startswith(origin):
            return error
        return ConfigurationError(f"{origin}: {error}", key=error.key)


def load_configuration(
    config: Path | None = None, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Configuration:
    """Reads all layers.

    :param config: the file that the user named; None for the default one, if it exists.
    :param overrides: `KEY=VALUE`, as given with `--set`.
    :param environment: the variables to look at, by default those of the process.

    Raises ConfigurationError with the first thing that is wrong; `check_configuration` finds all.
    """
    files = _find_files(config)
    layers = _every_setting(files, overrides, os.environ if environment is None else environment)
    settings = list(layers)
    problems = _problems(settings)
    if problems:
        more = f" (and {len(problems) - 1} more: see `lazylayer config check`)" if len(problems) > 1 else ""
        raise ConfigurationError(f"{problems[0]}{more}", key=problems[0].key)
    merged, origins = _merge(settings)
    configuration = Configuration(msgspec.convert(merged, Settings), origins, files)
    for problem in _contradictions(configuration.settings):
        raise configuration.located(problem)
    return configuration


def check_configuration(
    config: Path | None = None, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> list[ConfigurationError]:
    """Everything that is wrong with the core's own settings; an empty list if nothing is."""
    try:
        files = _find_files(config)
        settings = list(_every_setting(files, overrides, os.environ if environment is None else environment))
        problems = _problems(settings)
        if not problems:
            load_configuration(config, overrides, environment)
    except ConfigurationError as error:
        return [error]
    return problems


def load_plugin_choice(config: Path | None = None, overrides: Sequence[str] = ()) -> PluginsSettings:
    """The table `[plugins]` alone, quickly: what `lazylayer --help` needs. Raises as `load_configuration`."""
    from_elsewhere = any(name.upper().startswith(f"{ENVIRONMENT_PREFIX}PLUGINS") for name in os.environ)
    if from_elsewhere or overrides:
        return load_configuration(config, overrides).settings.plugins
    table: dict[str, Any] = {}
    for setting in _from_files(_find_files(config)):
        if setting.path[0] == "plugins" and len(setting.path) == 2:
            table[setting.path[1]] = setting.value
    try:
        return msgspec.convert(table, PluginsSettings)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"[plugins]: {error}", key="plugins") from error


# --- the layers -----------------------------------------------------------------------------------


def _find_files(config: Path | None) -> list[Path]:
    main = DEFAULT_FILE if config is None else config.absolute()
    try:
        if config is not None and not main.is_file():
            raise ConfigurationError(f"{config}: there is no such file; --config names it")
        files = [main] if main.is_file() else []
        return files + sorted((main.parent / "conf.d").glob("*.toml"))
    except OSError as error:
        raise ConfigurationError(f"{main}: cannot be read: {error.strerror}") from error


def _every_setting(
    files: Iterable[Path], overrides: Sequence[str], environment: Mapping[str, str]
) -> Iterator[_Setting]:
    yield from _from_files(files)
    yield from _from_environment(environment)
    yield from _from_overrides(overrides)


def _from_files(files: Iterable[Path]) -> Iterator[_Setting]:
    for file in files:
        try:
            with file.open("rb") as stream:
                content = stream.read(MAX_FILE_SIZE + 1)
            if len(content) > MAX_FILE_SIZE:
                raise ConfigurationError(f"{file}: larger than {MAX_FILE_SIZE} bytes")
            table = tomllib.loads(content.decode())
        except OSError as error:
            raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from error
        except ValueError as error:  # bad UTF-8, or TOMLDecodeError, which names line and column
            raise ConfigurationError(f"{file}: not TOML: {error}") from error
        for path, value in _leaves(table):
            yield _Setting(path, value, str(file))


def _from_environment(environment: Mapping[str, str]) -> Iterator[_Setting]:
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX):
            path = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            yield _Setting(path, environment[name], f"environment variable {name}", text=True)


def _from_overrides(overrides: Sequence[str]) -> Iterator[_Setting]:
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise ConfigurationError(f"--set {override}: expected KEY=VALUE, as in cache.chunks=cache_dir")
        yield _Setting(tuple(key.strip().split(".")), value.strip(), f"--set {key.strip()}", text=True)


def _leaves(table: Mapping[str, Any], above: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """The values of a nested table. A table whose keys hold dots (host names) counts as a value."""
    for key, value in table.items():
        path = (*above, key)
        if isinstance(value, Mapping) and value and not any("." in each for each in value):
            yield from _leaves(value, path)
        else:
            yield path, value


# --- merging --------------------------------------------------------------------------------------


def _merge(settings: Iterable[_Setting]) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """The merged tables as msgspec wants them, and where each value came from."""
    from dynaconf import Dynaconf

    layers = Dynaconf(
        settings_files=[], core_loaders=[], loaders=[], environments=False, load_dotenv=False, merge_enabled=False
    )
    origins: dict[KeyPath, str] = {}
    for each in settings:
        if each.value == {} and any(path[: len(each.path)] == each.path for path in origins):
            continue  # an empty table takes nothing away
        value = _read_text(each) if each.text else each.value
        layers.set(".".join(each.path), _escaped(value), loader_identifier=each.origin)
        for path in [path for path in origins if path[: len(each.path)] == each.path]:
            del origins[path]
        origins[each.path] = each.origin
    tables = {key.lower(): _unescaped(value) for key, value in layers.as_dict().items()}
    return {key: tables[key] for key in tables if any(path[0] == key for path in origins)}, origins


def _read_text(setting: _Setting) -> Any:
    """The value of a variable or of `--set`: text where the key takes text, else read as TOML."""
    from dynaconf.utils.parse_conf import parse_conf_data

    if setting.value[:1] in ("'", '"'):
        try:
            return tomllib.loads(f"value = {setting.value}")["value"]
        except tomllib.TOMLDecodeError:
            return setting.value
    if _expected(setting.path) is str or setting.value.startswith("@"):
        return setting.value
    return parse_conf_data(setting.value, tomlfy=True)


def _escaped(value: Any) -> Any:
    """`value` so that dynaconf takes it as it is: text that begins with @ may be a command to it."""
    if isinstance(value, str) and value.startswith("@"):
        return _ESCAPE + value
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _escaped(each) for key, each in value.items()}
    return value


def _unescaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.removeprefix(_ESCAPE)
    if isinstance(value, list):
        return [_unescaped(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _unescaped(each) for key, each in value.items()}
    return value


# --- checking -------------------------------------------------------------------------------------


def _problems(settings: Iterable[_Setting]) -> list[ConfigurationError]:
    problems = []
    for setting in settings:
        said = _problem(setting)
        if said:
            key = ".".join(setting.path)
            problems.append(ConfigurationError(f"{setting.origin}: {said}", key=key))
    return problems


def _problem(setting: _Setting) -> str:
    """What is wrong with one setting by itself; an empty string if nothing is."""
    key = ".".join(setting.path)
    if setting.path[0] == "plugin":
        if len(setting.path) < 3 and not (len(setting.path) == 2 and isinstance(setting.value, Mapping)):
            return f"{key}: expected a table, [plugin.NAME]"
        return ""
    expected = _expected(setting.path)
    if expected is None:
        return f"unknown key {key}{_suggestion(key)}"
    if isinstance(expected, type) and issubclass(expected, msgspec.Struct):
        return "" if setting.value == {} else f"{key}: expected a table, [{key}]"
    try:
        msgspec.convert(_read_text(setting) if setting.text else setting.value, expected)
    except msgspec.ValidationError as error:
        return f"{key}: {str(error).partition(' - at ')[0]}"
    return ""


def _expected(path: KeyPath) -> Any:
    """The type of the setting at `path`, or None if there is no such setting."""
    expected: Any = Settings
    for key in path:
        if not (isinstance(expected, type) and issubclass(expected, msgspec.Struct)):
            return None
        types = {field.encode_name: field.type for field in msgspec.structs.fields(expected)}
        expected = types.get(key)
    return expected


def _known_keys(table: type[msgspec.Struct] = Settings, above: KeyPath = ()) -> Iterator[str]:
    for field in msgspec.structs.fields(table):
        path = (*above, field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _known_keys(field.type, path)
        else:
            yield ".".join(path)


def _suggestion(key: str) -> str:
    known = list(_known_keys())
    near = get_close_matches(key.lower(), known, 1, 0.75)
    if not near:
        last = key.rpartition(".")[2].lower()
        near = [each for each in known if each.rpartition(".")[2] == last]
    return f"; did you mean {near[0]}?" if near else "; see docs/configuration.md for all keys"


def _contradictions(settings: Settings) -> Iterator[ConfigurationError]:
    """What is wrong between settings, or with the meaning of one."""
    from lazylayer.oci import Platform

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
