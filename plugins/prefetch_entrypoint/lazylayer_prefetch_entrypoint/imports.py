"""What the import statements of a Python module name, as they stand in its source.

What counts is what runs when the module is imported itself: functions are not looked into, nor what is
there for type checkers, or for a module that is run. Source: the language reference, "The import statement".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["dotted_names", "names_in_source"]

_STATEMENT = re.compile(
    rb"^(?P<indent>[ \t]*)(?:"
    rb"import[ \t]+(?P<modules>(?:\\\r?\n|[^#;\r\n\\])*)"
    rb"|from[ \t]+(?P<dots>\.*)(?P<module>[\w.]*)[ \t]+import[ \t]*(?P<names>\([^)]{,4000}\)"
    rb"|(?:\\\r?\n|[^#;(\r\n\\])*)"
    rb"|(?P<hidden>(?:async[ \t]+)?def\b|if[ \t]+(?:typing\.)?TYPE_CHECKING\b|if[ \t]+__name__\b)"
    rb"|(?P<other>[\w@\"']))",
    re.MULTILINE,
)
_COMMENT = re.compile(rb"#[^\n]*")


def names_in_source(source: bytes) -> list[bytes]:
    """What is imported, in order, with as many dots in front as the statements have.

    `from .a import b` is `.a.b`: a module, or something in the module `.a`.
    """
    names: list[bytes] = []
    hidden = -1
    for match in _STATEMENT.finditer(source):
        indent = len(match["indent"])
        if 0 <= hidden < indent:
            continue
        hidden = indent if match["hidden"] else -1
        if match["modules"]:
            names.extend(_first_words(match["modules"]))
        elif match["names"]:
            words = _first_words(match["names"].strip(b"()"))
            names.extend(dotted_names(match["dots"] + match["module"], words))
    return names


def dotted_names(module: bytes, names: Iterable[bytes]) -> Iterator[bytes]:
    """What `from module import names` imports."""
    between = b"" if module.endswith(b".") else b"."
    for name in names:
        yield module + between + name if name != b"*" else module


def _first_words(listing: bytes) -> Iterator[bytes]:
    for part in _COMMENT.sub(b"", listing).replace(b"\\", b" ").split(b","):
        words = part.split()
        if words:
            yield words[0]
