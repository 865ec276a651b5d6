"""Clean texts from outside before they are stored, logged or printed."""

from __future__ import annotations

import re

__all__ = ["one_line", "scrub"]

_SECRETS = (
    # Authorization headers, in whatever quoting.
    (re.compile(r"(?i)\b(bearer|basic)\s+(?=\S*[0-9=+/.])[A-Za-z0-9+/=._~-]{6,}"), r"\1 ***"),
    # User and password in front of a host.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s@'\"]+@"), r"\1***@"),
    # Query strings: signed addresses are as good as passwords.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s?'\"]+)\?[^\s'\"]+"), r"\1?***"),
    # name=value, name: value, "name": "value"
    (
        re.compile(
            r"(?i)([\"']?\b[a-z_-]*(?:password|passwd|secret|token|authorization)[\"']?\s*[=:]\s*)"
            r"(\"[^\"]*\"|'[^']*'|[^\s,;}\])]+)"
        ),
        r"\1***",
    ),
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, marks of writing direction, and surrogates."""


def scrub(text: str) -> str:
    """Return `text` without credentials: those in headers, URLs, query strings and `password=…`."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def one_line(text: str) -> str:
    """Return `text` as one scrubbed line with control characters escaped, safe for terminals and logs."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), scrub(text))
