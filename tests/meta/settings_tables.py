"""The tables of docs/configuration.md, made from the settings; `python -m meta.settings_tables` prints them."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import types
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import msgspec

from lazylayer.api import settings
from lazylayer.api.settings import Settings

__all__ = ["tables"]

_WORDS = {str: "text", int: "number", float: "number", bool: "true or false"}
_DEFAULTS = {"root": "`/var/lib/lazylayer`", "run": "`/run/lazylayer`"}
"""Those of root; the page says what others have."""


def tables() -> str:
    """Return all tables, in the order of the settings."""
    pieces = [_table(Settings, "")]
    for field in msgspec.structs.fields(Settings):
        if _is_table(field.type):
            title = (inspect.getdoc(field.type) or "").partition(": ")
            pieces.append(f"## {title[0]}\n\n{_sentence(title[2])}\n\n{_table(field.type, f'{field.name}.')}")
    return "\n\n".join(pieces)


def _table(table: type[msgspec.Struct], prefix: str) -> str:
    rows = ["| key | value | default | |", "|---|---|---|---|"]
    meanings = dict(_meanings(table))
    for field in msgspec.structs.fields(table):
        if _is_table(field.type):
            continue
        key = f"{prefix}{field.name}"
        default = _DEFAULTS.get(key) or f"`{_toml(field.default)}`"
        rows.append(f"| `{key}` | {_words(field.type)} | {default} | {meanings[field.name]} |")
    return "\n".join(rows)


def _meanings(table: type[msgspec.Struct]) -> Iterator[tuple[str, str]]:
    """Return the texts below the fields, which Python does not keep."""
    tree = ast.parse(inspect.getsource(settings))
    (body,) = [each.body for each in tree.body if isinstance(each, ast.ClassDef) and each.name == table.__name__]
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            yield ast.unparse(field.target), _sentence(" ".join(str(text.value.value).split()))


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _words(kind: Any) -> str:
    metadata = getattr(kind, "__metadata__", ())
    if metadata:
        unit = (metadata[0].extra or {}).get("unit", "")
        bounds = {"ge": "at least", "gt": "more than", "le": "at most"}
        said = [f"{words} {getattr(metadata[0], name):g}" for name, words in bounds.items() if _has(metadata[0], name)]
        return f"{unit or _words(kind.__origin__)}, {', '.join(said)}"
    if get_origin(kind) is tuple:
        return f"list of {_words(get_args(kind)[0])}"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(kind))
    assert not isinstance(kind, types.UnionType)
    return _WORDS[kind]


def _has(bound: Any, name: str) -> bool:
    return getattr(bound, name) is not None


def _toml(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


if __name__ == "__main__":
    print(tables())
