"""Read the import statements of a Python module from its source.

Counted are the statements that run when the module itself is imported: function bodies are skipped, and
so is code for type checkers and for a module run as a program. Source: the language reference, "The
import statement".

An image's author wrote the source, so scanning takes linear time: no line, list of names or name is
longer than its limit, each byte is looked at a fixed number of times, and the patterns (which are matched
against one such line) never backtrack.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazylayer_prefetch_entrypoint.budget import Budget

__all__ = ["MAX_NAME", "MAX_NAMES", "dotted_names", "names_in_source"]

MAX_NAMES = 4000
"""Names that one module may import: no module is worth more work."""
MAX_NAME = 512
"""Bytes of a name; longer ones are left out."""
_MAX_LINE = 4096
"""Bytes of a line that are looked at."""
_MAX_LISTING = 4096
"""Bytes of a list of names that goes over several lines."""
_FROM = re.compile(rb"from[ \t]++(\.*+[\w.]*+)[ \t]++import(?![\w.])[ \t]*+")
_HIDDEN = re.compile(rb"(?:async[ \t]++)?+def\b|if[ \t]++(?:(?:typing\.)?+TYPE_CHECKING|__name__)\b")
_FIRST = frozenset(bytes((each,)) for each in range(128) if chr(each).isalnum() or chr(each) in "_@\"'")
"""First characters of lines that are statements, and no comments, closing brackets or blank lines."""


def names_in_source(source: bytes, budget: Budget) -> list[bytes]:
    """Return the imported names in order, with as many leading dots as the statements have.

    `from .a import b` is `.a.b`: a module, or something in the module `.a`. Raises OverBudgetError.
    """
    lines = _Lines(source, budget)
    names: list[bytes] = []
    hidden = -1
    while len(names) < MAX_NAMES and lines.advance():
        code = lines.line.lstrip(b" \t")
        indent = len(lines.line) - len(code)
        if code[:1] in _FIRST and not 0 <= hidden < indent:
            hidden = indent if _HIDDEN.match(code) else -1
            names.extend(islice(_imported(code, lines), MAX_NAMES - len(names)))
    return names


def dotted_names(module: bytes, names: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the names that `from module import names` imports, without those that are too long."""
    between = b"" if module.endswith(b".") else b"."
    if len(module) <= MAX_NAME:
        for name in names:
            if len(name) <= MAX_NAME:
                yield module + between + name if name != b"*" else module


def _imported(code: bytes, lines: _Lines) -> Iterator[bytes]:
    if code.startswith((b"import ", b"import\t")):
        yield from _first_words(lines.listing(code[len(b"import ") :]))
    elif (found := _FROM.match(code)) is not None:
        rest = code[found.end() :]
        yield from dotted_names(
            found[1], _first_words(lines.parenthesis() if rest.startswith(b"(") else lines.listing(rest))
        )


def _first_words(listing: bytes) -> Iterator[bytes]:
    """Yield the first word of each part between commas: the names, without what they are renamed to."""
    for part in listing.split(b","):
        words = part.split(None, 1)
        if words and len(words[0]) <= MAX_NAME:
            yield words[0]


class _Lines:
    """The lines of a source, one after the other. Looks at each byte at most three times, and pays for it."""

    def __init__(self, source: bytes, budget: Budget) -> None:
        self.line = b""
        """The current line, cut to its limit, without the line feed."""
        self._source = source
        self._budget = budget
        self._start = 0
        self._next = 0
        # The first closing parenthesis at or behind the place last asked for, and how far was looked for it.
        self._closing = -1
        self._searched = 0

    def advance(self) -> bool:
        """Go to the next line; return False at the end."""
        self._start = self._next
        if self._start >= len(self._source):
            return False
        self._skip_to_line_after(self._start)
        self.line = self._source[self._start : min(self._next, self._start + _MAX_LINE)].rstrip(b"\r\n")
        return True

    def listing(self, first: bytes) -> bytes:
        """Return the list of names that starts with `first` and goes on behind each backslash at a line's end."""
        listing = b""
        line = first
        while True:
            names = line.partition(b"#")[0].partition(b";")[0].partition(b"(")[0]
            if len(names) < len(line) or not line.endswith(b"\\"):
                return listing + names
            listing += names[:-1] + b" "
            if len(listing) > _MAX_LISTING or not self.advance():
                return listing
            line = self.line

    def parenthesis(self) -> bytes:
        """Return what stands in the parenthesis that opens on this line, comments left out; nothing if it is long.

        The lines of the parenthesis are skipped.
        """
        start = self._start + self.line.index(b"(") + 1
        end = min(start + _MAX_LISTING, len(self._source))
        if self._closing < start and self._searched < end:
            begin = max(start, self._searched)
            self._closing = self._source.find(b")", begin, end)
            self._searched = self._closing + 1 if self._closing >= 0 else end
            self._budget.spend(self._searched - begin)
        if not start <= self._closing < end:
            return b""
        listing = self._source[start : self._closing]
        self._skip_to_line_after(self._closing)
        return b" ".join(line.partition(b"#")[0].replace(b"\\", b" ") for line in listing.split(b"\n"))

    def _skip_to_line_after(self, position: int) -> None:
        found = self._source.find(b"\n", position)
        self._next = found + 1 if found >= 0 else len(self._source)
        self._budget.spend(self._next - position)
