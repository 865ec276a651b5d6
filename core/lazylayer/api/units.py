"""Durations and sizes as people write them, for settings and the options of plugins.

A setting of these types takes a number, or text with units: `"30s"`, `"1m30s"`, `"1.5h"`, `"500ms"`; `"20GB"`,
`"64 MiB"`. The value is a number of seconds, or of bytes.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

__all__ = [
    "Duration",
    "PositiveDuration",
    "PositiveSize",
    "Size",
    "explain_value",
    "parse_duration",
    "parse_size",
    "type_at",
    "with_units",
]

_DURATION, _SIZE = {"unit": "duration"}, {"unit": "size"}

Duration = Annotated[float, msgspec.Meta(ge=0, extra=_DURATION)]
PositiveDuration = Annotated[float, msgspec.Meta(gt=0, extra=_DURATION)]
Size = Annotated[int, msgspec.Meta(ge=0, extra=_SIZE)]
PositiveSize = Annotated[int, msgspec.Meta(ge=1, extra=_SIZE)]

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_PART = re.compile(rf"{_NUMBER}\s*(ns|us|µs|ms|s|m|h|d)")
_WHOLE_DURATION = re.compile(rf"(?:{_PART.pattern}\s*)+")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WHOLE_SIZE = re.compile(rf"{_NUMBER}\s*(?:([KMGT])(i?)B?|B)", re.IGNORECASE)

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: 'text in quotes, as in "text"',
}


def parse_duration(text: str) -> float:
    """Return the seconds of a duration like `1m30s`. Raises ValueError."""
    if not _WHOLE_DURATION.fullmatch(text):
        raise ValueError(f'{text!r} is not a duration like "30s" or "1m30s"')
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def parse_size(text: str) -> int:
    """Return the bytes of a size like `20GB` or `64MiB`. Raises ValueError."""
    found = _WHOLE_SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is not a size like "20GB" or "64MiB"')
    power = "KMGT".index(found[2].upper()) + 1 if found[2] else 0
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)


def with_units(value: Any, kind: Any) -> Any:
    """Return `value` with the durations and sizes in it as numbers, wherever the type `kind` has some.

    Whatever does not fit is left as it is, for the check that follows.
    """
    if isinstance(value, str):
        try:
            unit = _unit(kind)
            return parse_duration(value) if unit == "duration" else parse_size(value) if unit == "size" else value
        except ValueError:
            return value
    for each in _alternatives(kind):
        if isinstance(value, Mapping) and isinstance(each, type) and issubclass(each, msgspec.Struct):
            kinds = {field.encode_name: field.type for field in msgspec.structs.fields(each)}
            return {key: with_units(item, kinds.get(key)) for key, item in value.items()}
        if isinstance(value, Mapping) and get_origin(each) in (dict, Mapping):
            return {key: with_units(item, get_args(each)[1]) for key, item in value.items()}
        if isinstance(value, list) and get_origin(each) in (tuple, list):
            return [with_units(item, get_args(each)[0]) for item in value]
    return value


def type_at(table: type[msgspec.Struct], path: Iterable[str]) -> Any:
    """Return the type of the setting at `path`, or None if that is unknown; a part like `[...]` is inside a list."""
    found: Any = table
    for part in path:
        choices = _alternatives(found)
        if part[:1] == "[":
            found = next((get_args(each)[-1] for each in choices if get_origin(each) in (list, dict)), None)
        else:
            tables = [each for each in choices if isinstance(each, type) and issubclass(each, msgspec.Struct)]
            fields = msgspec.structs.fields(tables[0]) if tables else ()
            found = next((each.type for each in fields if each.encode_name == part), None)
    return found


def explain_value(kind: Any, otherwise: str) -> str:
    """Return what a setting of the type `kind` takes, in TOML's words; without a known type, of msgspec's text."""
    kinds = [each for each in _alternatives(kind) if each is not type(None)]
    if not kinds or kind is Any or kind is None:
        return _in_words(otherwise)
    return f"expected {' or '.join(map(_describe, kinds))}"


def _describe(kind: Any) -> str:
    bounds = next((each for each in getattr(kind, "__metadata__", ()) if isinstance(each, msgspec.Meta)), None)
    if bounds is not None:
        limits = {"ge": "at least", "gt": "more than", "le": "at most"}
        known = {words: getattr(bounds, name) for name, words in limits.items()}
        said = [f", {words} {value:g}" for words, value in known.items() if value is not None]
        unit = _unit(kind)
        if unit == "duration":
            return f'a duration like "30s" or "1m30s", or a number of seconds{"".join(said)}'
        if unit == "size":
            return f'a size like "20GB" or "64MiB", or a number of bytes{"".join(said)}'
        return _describe(kind.__origin__) + "".join(said)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'"{each}"' for each in get_args(kind))
    if get_origin(kind) in (tuple, list):
        example = 'as in ["one", "two"]' if get_args(kind)[0] is str else "[…]"
        return f"an array, {example}"
    return _KINDS.get(kind, "a table")


def _unit(kind: Any) -> str:
    for each in _alternatives(kind):
        for meta in getattr(each, "__metadata__", ()):
            if isinstance(meta, msgspec.Meta) and meta.extra:
                return str(meta.extra.get("unit", ""))
    return ""


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _in_words(said: str) -> str:
    """Return msgspec's complaint without the names of Python's and JSON's types."""
    words = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "object": "a table"}
    words |= {"array": "an array, […]", "null": "nothing"}
    told = re.sub(r"`(\w+)(?: \| null)?`", lambda found: words.get(found[1], found[1]), said)
    return told[:1].lower() + told[1:]
