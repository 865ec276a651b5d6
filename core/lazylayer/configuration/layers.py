"""Merge the layers of the configuration with dynaconf.

dynaconf parses the values of variables and of `--set`, and merges the layers. It gets all input from
here: on its own it would also read `*.local.toml`, variables that begin with `DYNACONF_`, and files that
values name (`@read_file …`), join lists, replace whole tables, and read `__` in a key as a dot. Keys and
values with a meaning of their own are escaped, and its own environment variables are hidden from it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

__all__ = ["KeyPath", "Setting", "dotted", "leaves", "merge_settings", "parse_key", "read_text"]

KeyPath = tuple[str, ...]
"""A key in parts: `("cache", "chunks")`."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_HARMLESS_KEY = re.compile(r"(?!dynaconf|quoted_)[a-z0-9]+(?:_[a-z0-9]+)*")
_INDEX = re.compile(r"___[0-9]")
_QUOTED = "quoted_"
_ESCAPE = "\0"


class Setting(NamedTuple):
    """A value that one layer sets, and that layer in words."""

    path: KeyPath
    value: Any
    origin: str


def dotted(path: KeyPath) -> str:
    """Return the key as in TOML: `cache.chunks`, `plugin.mine."host:5000"`."""
    return ".".join(part if _BARE_KEY.fullmatch(part) else f'"{_in_quotes(part)}"' for part in path)


def parse_key(key: str) -> KeyPath:
    """Return the parts of a dotted key. Raises ValueError for an invalid one."""
    if _BARE_KEY.fullmatch(key.replace(".", "")) and all(key.split(".")):
        return tuple(key.split("."))
    if "\n" in key:
        raise ValueError(key)
    import tomllib

    ((path, _),) = leaves(tomllib.loads(f"{key} = 0"))
    return path


def leaves(table: Mapping[str, Any], above: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield the values of a nested table; an empty table counts as a value."""
    for key, value in table.items():
        path = (*above, key)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, path)
        else:
            yield path, value


def read_text(text: str) -> Any:
    """Parse `text` as a TOML value, or return it unchanged if it is not TOML."""
    from dynaconf.utils.parse_conf import parse_conf_data

    # Without quotes dynaconf would obey `@int 3`, and in quotes too.
    if text[:1] in ("@", "'", '"'):
        import tomllib

        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
    try:
        return parse_conf_data(text, tomlfy=True)
    except RecursionError:
        return text


def merge_settings(settings: Iterable[Setting]) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """Merge settings into nested tables, and return them with the origin of each value.

    Later settings override earlier ones. Tables are merged; everything else is replaced.
    """
    origins: dict[KeyPath, str] = {}
    listed = list(settings)
    if not listed:
        return {}, {}  # without importing dynaconf
    with _plain_dynaconf() as layers:
        for each in listed:
            below = [path for path in origins if path[: len(each.path)] == each.path]
            if each.value == {} and any(len(path) > len(each.path) for path in below):
                continue  # an empty table takes nothing away
            value = _each_string(each.value, lambda text: _ESCAPE + text)
            layers.set(".".join(map(_escaped_key, each.path)), value, loader_identifier=each.origin)
            for path in below:
                del origins[path]
            for length in range(1, len(each.path)):
                origins.pop(each.path[:length], None)
            origins[each.path] = each.origin
        tables = {key.lower(): value for key, value in layers.as_dict().items()}
    ours = {path[0] for path in origins}
    unescaped = _unescaped_keys({key: value for key, value in tables.items() if key in ours})
    merged: dict[str, Any] = _each_string(unescaped, lambda text: text.removeprefix(_ESCAPE))
    return merged, origins


@contextmanager
def _plain_dynaconf() -> Iterator[Any]:
    """Yield a dynaconf that reads no files and no variables."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if "DYNACONF" in name.upper()}
    try:
        from dynaconf import Dynaconf

        yield Dynaconf(settings_files=[], core_loaders=[], loaders=[], environments=False, load_dotenv=False)
    finally:
        os.environ.update(hidden)


def _escaped_key(key: str) -> str:
    if _HARMLESS_KEY.fullmatch(key) and not _INDEX.search(key):
        return key
    return _QUOTED + key.encode().hex()


def _unescaped_keys(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    tables: dict[str, Any] = {}
    for key, each in value.items():
        name = bytes.fromhex(key.removeprefix(_QUOTED)).decode() if key.startswith(_QUOTED) else key
        tables[name] = _unescaped_keys(each)
    return tables


def _each_string(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each_string(each, change) for each in value]
    if isinstance(value, Mapping):
        return {key: _each_string(each, change) for key, each in value.items()}
    return value


def _in_quotes(text: str) -> str:
    return re.sub(r'[\\"\x00-\x1f\x7f]', lambda found: f"\\u{ord(found[0]):04x}", text)
