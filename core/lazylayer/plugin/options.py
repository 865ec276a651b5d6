"""Read the table `[plugin.NAME]` into the `Options` that a plugin declares."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

from lazylayer.api.units import explain_value, type_at, with_units
from lazylayer.errors import ConfigurationError
from lazylayer.plugin.records import ContractError

__all__ = ["declared_options", "read_options"]

Options = TypeVar("Options", bound=msgspec.Struct)


def declared_options(plugin: object) -> type[msgspec.Struct] | None:
    """Return the `Options` that a plugin, or the module that defines its class, has; None if there are none.

    Raises ContractError if they are not a struct.
    """
    module = sys.modules.get(type(plugin).__module__)
    options = getattr(plugin, "Options", None) or getattr(module, "Options", None)
    if options is None or (isinstance(options, type) and issubclass(options, msgspec.Struct)):
        return options
    raise ContractError("its Options is not a msgspec.Struct; declare class Options(msgspec.Struct, frozen=True)")


def read_options(tables: Mapping[str, Any], name: str, options: type[Options], options_table: str = "") -> Options:
    """Return the options of plugin `name`, checked, with its defaults.

    :param tables: the tables of all plugins, nested as in TOML: `{"plugin": {NAME: {…}}}`.
    :param options_table: a top-level table that sets the option of the same name; empty for none.

    Raises ConfigurationError, which names the key.
    """
    own = dict(tables.get("plugin", {}).get(name, {}))
    place = _Place(f"plugin.{name}", options_table if options_table in tables else "")
    if place.shared:
        if place.shared in own:
            key = f"{place.table}.{place.shared}"
            raise ConfigurationError(f"{key}: [{place.shared}] is set too; remove one of them", key=key)
        own[place.shared] = tables[place.shared]
    known = options.__struct_encode_fields__
    for key in own:
        if key not in known:
            raise _unknown(place.key(key), key, known)
    try:
        return msgspec.convert(with_units(own, options), options, strict=True)
    except msgspec.ValidationError as error:
        raise _explained(place, options, error) from error


class _Place(msgspec.Struct, frozen=True):
    """The tables that options come from."""

    table: str
    shared: str

    def key(self, path: str) -> str:
        """Return the dotted key, as it is written in the configuration, of the option at `path`."""
        if self.shared and path.partition(".")[0] == self.shared:
            return path
        return f"{self.table}.{path}" if path else self.table


def _unknown(key: str, last: str, known: tuple[str, ...]) -> ConfigurationError:
    near = get_close_matches(last, known, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return ConfigurationError(f"unknown key {key}{hint}", key=key)


def _explained(place: _Place, options: type[msgspec.Struct], error: msgspec.ValidationError) -> ConfigurationError:
    """Return msgspec's complaint as an error that names the key."""
    said, _, where = str(error).partition(" - at ")
    # A path like $.hosts[...][0]: the part after the first bracket is not a key of the configuration.
    path, inner, _ = where.strip("`").removeprefix("$").removeprefix(".").partition("[")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", said)
    if unknown is not None:
        return _unknown(place.key(".".join(filter(None, (path, unknown[1])))), unknown[1], _fields(options, path))
    key = place.key(path)
    kind = type_at(options, re.findall(r"\[[^]]*\]|[^.[\]]+", where.strip("`").removeprefix("$")))
    return ConfigurationError(f"{key}: {explain_value(kind, said)}{' (in it)' if inner else ''}", key=key)


def _fields(options: type[msgspec.Struct], path: str) -> tuple[str, ...]:
    """Return the names of the fields of the struct at `path`; none if there is no struct."""
    found = type_at(options, filter(None, path.split(".")))
    return found.__struct_encode_fields__ if isinstance(found, type) and issubclass(found, msgspec.Struct) else ()
