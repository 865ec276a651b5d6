"""Parse the challenges of WWW-Authenticate headers (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Challenge", "parse_challenges"]

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"\s*,?\s*({_WORD})(?:\s+|$|(?=,))")
_PARAMETER = re.compile(rf'\s*,?\s*({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))')
_MAX_HEADER = 8192


class Challenge(NamedTuple):
    """One challenge, with its scheme and parameter names in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Return the challenges of all WWW-Authenticate headers of an answer; ignore what cannot be parsed."""
    challenges: list[Challenge] = []
    for header in headers:
        text, at = header[:_MAX_HEADER], 0
        while (scheme := _SCHEME.match(text, at)) is not None and scheme.end() > at:
            at = scheme.end()
            parameters: dict[str, str] = {}
            while (found := _PARAMETER.match(text, at)) is not None:
                quoted, plain = found[2], found[3]
                parameters[found[1].lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                at = found.end()
            challenges.append(Challenge(scheme[1].lower(), parameters))
    return challenges
