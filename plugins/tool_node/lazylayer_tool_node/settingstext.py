"""Write all settings with defaults and meanings as commented TOML."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from lazylayer.api.settings import Settings

__all__ = ["field_meanings", "settings_text"]


def settings_text() -> str:
    """Return a configuration file in which everything is a comment."""
    lines = ["# The configuration of lazylayer: uncomment what you change. docs/configuration.md explains it.", ""]
    tables = [("", Settings), *((field.name, field.type) for field in msgspec.structs.fields(Settings))]
    for name, kind in tables:
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            continue
        if name:
            lines += [f"# [{name}]", ""]
        meanings = field_meanings(kind)
        for field in msgspec.structs.fields(kind):
            if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
                continue
            lines += [f"# {line}" for line in meanings.get(field.name, "").splitlines()]
            lines += [f"# {field.name} = {_toml(_default(field))}", ""]
    return "\n".join(lines)


def _default(field: Any) -> Any:
    return field.default_factory() if field.default is msgspec.NODEFAULT else field.default


def _toml(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def field_meanings(table: type[msgspec.Struct]) -> dict[str, str]:
    """Return the texts below the fields of a struct, by name, as its source has them; none if that is not there."""
    try:
        return dict(_meanings(table))
    except (OSError, SyntaxError, TypeError, ValueError):
        return {}


def _meanings(table: type[msgspec.Struct]) -> Iterator[tuple[str, str]]:
    tree = ast.parse(inspect.getsource(sys.modules[table.__module__]))
    (body,) = [each.body for each in tree.body if isinstance(each, ast.ClassDef) and each.name == table.__name__]
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            yield ast.unparse(field.target), inspect.cleandoc(str(text.value.value))
