"""containerd's filters, by which List is asked for some snapshots only.

A filter is a list of selectors that must all match, `kind==active,labels."containerd.io/x"~=/^y/`; of
several filters one must match. A selector is a field and, perhaps, an operator (`==`, `!=`, or `~=`
for a regular expression) and a value; without these it asks whether the field is there. The grammar
is that of `pkg/filters` of containerd.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable

from lazylayer_snapshotter_containerd.problems import InvalidArgumentError
from lazylayer_snapshotter_containerd.store import Snapshot

__all__ = ["parse_filters"]

Filter = Callable[[Snapshot], bool]

_MAX_LENGTH = 64 * 1024
_QUOTED = r'"(?:[^"\\\n]|\\.)*"'
_FIELD = re.compile(rf"\s*(?:({_QUOTED})|([A-Za-z0-9_]+))")
_OPERATOR = re.compile(r"\s*(==|!=|~=)")
_VALUE = re.compile(rf"\s*(?:({_QUOTED})|([^\s,\"][^\s,]*))")
_EXPRESSION = re.compile(rf"\s*(?:({_QUOTED})|/((?:[^/\\\n]|\\.)*)/|\|((?:[^|\\\n]|\\.)*)\||([^\s,]+))")
_COMMA = re.compile(r"\s*(,|$)")


def parse_filters(texts: Iterable[str]) -> Filter:
    """Return a function that is True for snapshots that one of the filters matches, or for all without filters.

    Raises InvalidArgumentError.
    """
    filters = [_parse(text) for text in texts]
    return lambda snapshot: not filters or any(each(snapshot) for each in filters)


def _parse(text: str) -> Filter:
    if len(text) > _MAX_LENGTH:
        raise InvalidArgumentError(f"a filter is longer than {_MAX_LENGTH} characters")
    selectors = []
    at = 0
    while text.strip():
        selector, at = _parse_selector(text, at)
        selectors.append(selector)
        comma = _expect(_COMMA, text, at)
        at = comma.end()
        if not comma[1]:
            break
    return lambda snapshot: all(selector(snapshot) for selector in selectors)


def _parse_selector(text: str, at: int) -> tuple[Filter, int]:
    path = []
    while True:
        field = _expect(_FIELD, text, at)
        path.append(_unquote(field[1], text) if field[1] else field[2])
        at = field.end()
        if text[at : at + 1] != ".":
            break
        at += 1
    operator = _OPERATOR.match(text, at)
    if operator is None:
        return lambda snapshot: bool(_look_up(snapshot, path)), at
    value = _expect(_EXPRESSION if operator[1] == "~=" else _VALUE, text, operator.end())
    wanted = _unquote(value[1], text) if value[1] else next(each for each in value.groups()[1:] if each is not None)
    return _comparison(path, operator[1], wanted, text), value.end()


def _comparison(path: list[str], operator: str, wanted: str, text: str) -> Filter:
    if operator == "==":
        return lambda snapshot: _look_up(snapshot, path) == wanted
    if operator == "!=":
        return lambda snapshot: _look_up(snapshot, path) != wanted
    try:
        expression = re.compile(wanted)
    except re.error as error:
        raise InvalidArgumentError(f"filter {text!r}: {error}") from None
    return lambda snapshot: expression.search(_look_up(snapshot, path) or "") is not None


def _look_up(snapshot: Snapshot, path: list[str]) -> str | None:
    match path[0]:
        case "name":
            return snapshot.name
        case "parent":
            return snapshot.parent
        case "kind":
            return snapshot.kind.name.lower()
        case "labels":
            return snapshot.labels.get(".".join(path[1:]))
    return None


def _expect(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str]:
    found = pattern.match(text, at)
    if found is None:
        raise InvalidArgumentError(f"filter {text!r}: it cannot be understood from character {at} on")
    return found


def _unquote(quoted: str, text: str) -> str:
    r"""Return the text of a Go string literal; JSON lacks its `\x41` and octal escapes."""
    plain = re.sub(r"\\x([0-9A-Fa-f]{2})", lambda found: f"\\u00{found[1]}", quoted)
    try:
        value: str = json.loads(plain)
    except ValueError:
        raise InvalidArgumentError(f"filter {text!r}: {quoted} is not a string") from None
    return value
