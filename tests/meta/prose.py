"""The rules of our prose that a machine can hold, and what breaks them.

A docstring's summary is one line: an imperative verb and its object for what can be called (PEP 257), a noun
phrase for a class or a module. Sentences name who acts; the words below are those that a native reader
stumbles over. To list what to mend: `PYTHONPATH=tests .venv/bin/python -m meta.prose PATH ...`.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

__all__ = ["MAX_SUMMARY", "Breach", "breaches_in_docstrings", "breaches_in_text", "docstrings"]

MAX_SUMMARY = 110
"""Characters of a summary line without its indentation."""

_BANNED = {
    r"\bwhoever\b": "name the actor",
    r"\bwhomever\b": "name the actor",
    r"\bthereof\b": "repeat the noun",
    r"\bnobody\b": "name the actor, or use the passive",
    r"\b(?:is|are|was) no [a-z]+ of\b": "say `is not`",
    r"\b(?:is|are) no (?:mountpoint|directory|key|digest|error|file|tag|name|plugin)\b": "say `is not a`",
    r"\bsends? us around in circles\b": "redirect loop",
    r"\bcannot be had\b": "say what failed",
    r"\bhas it \w+ed\b": "name the actor",
    r"\bwhat of it\b": "repeat the noun",
    r"\bit is what it\b": "say what is equal",
    r"\bwho (?:asks|waits|reads|needs|comes|uses|calls)\b": "name the actor",
    r"\bthere (?:is|are) no such\b": "no such ...",
    r"\bfor ever\b": "forever",
}
_FIRST_WORDS = re.compile(
    r"(?:Whether|What|Who|Which|Whose|Whom|Whoever|How|Where|Why|Says|Gives|Has|Tells|Lets|Takes|Makes|Returns|Is|Are|It)\b"
)
_QUESTION = re.compile(r"(?:Whether|What|Who|Whoever|How|Which|Where|Why)\b")
_NOUN_PHRASE = re.compile(
    r"(?:The|A|An|One|All|Every|Each|Any|None|Nothing|Those|These|That|As|Like|For|With|True|Up to)\b"
)
_THIRD_PERSON = re.compile(r"[A-Z][a-z]+(?:[^s]s|ies|sses|shes|ches)$")
_NOT_VERBS = frozenset(
    [
        "This",
        "Its",
        "Bytes",
        "Seconds",
        "Sizes",
        "Always",
        "Pass",
        "Access",
        "Process",
        "Address",
        "Discuss",
        "Focus",
        "Alias",
    ]
)


class Breach(NamedTuple):
    """A place that breaks a rule: the line it starts on, the text, and the rule."""

    line: int
    text: str
    rule: str


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield the docstrings of a module, its classes, functions and attributes, private ones too: (line, kind, text)."""
    if text := ast.get_docstring(tree):
        yield 1, "module", text
    for node in ast.walk(tree):
        yield from _attributes(getattr(node, "body", None))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node)
            if text:
                yield node.lineno, _kind(node), text


def _attributes(body: object) -> Iterator[tuple[int, str, str]]:
    for assigned, node in pairwise(body) if isinstance(body, list) else ():
        if isinstance(assigned, ast.Assign | ast.AnnAssign) and isinstance(node, ast.Expr):
            text = node.value.value if isinstance(node.value, ast.Constant) else None
            if isinstance(text, str):
                yield node.lineno, "attribute", inspect.cleandoc(text)


def _kind(node: ast.AST) -> str:
    if isinstance(node, ast.ClassDef):
        return "class"
    if getattr(node, "name", "").startswith("test_"):
        return "value"  # what a check of a kit states
    decorators = [ast.unparse(each) for each in getattr(node, "decorator_list", [])]
    named = any(re.search(r"property|fixture|\.getter", each) for each in decorators)
    return "value" if named else "function"


def breaches_in_docstrings(path: Path) -> Iterator[Breach]:
    """Yield what breaks the rules in the docstrings of one Python file."""
    for line, kind, text in docstrings(ast.parse(path.read_text())):
        summary, _, rest = text.partition("\n")
        if kind in ("module", "attribute"):
            if _QUESTION.match(summary):
                yield Breach(line, summary, "begin with a noun phrase or an imperative verb")
            continue
        if rest and rest[:1] != "\n":
            yield Breach(line, summary, "the summary is one line, then a blank one")
        if len(summary) > MAX_SUMMARY:
            yield Breach(line, summary, f"the summary has at most {MAX_SUMMARY} characters")
        if not summary.endswith((".", "?", "!")):
            yield Breach(line, summary, "the summary ends with a period")
        first = summary.split(" ", 1)[0]
        if kind == "function" and (
            _FIRST_WORDS.match(summary) or (_THIRD_PERSON.match(first) and first not in _NOT_VERBS)
        ):
            yield Breach(line, summary, "begin with an imperative verb")
        if kind == "function" and _NOUN_PHRASE.match(summary):
            yield Breach(line, summary, "begin with an imperative verb, not with its object")
        if kind == "value" and _QUESTION.match(summary):
            yield Breach(line, summary, "begin with a verb (`Return True if ...`) or a noun phrase")
        if kind == "class" and _QUESTION.match(summary):
            yield Breach(line, summary, "begin with a noun phrase")


def breaches_in_text(text: str) -> Iterator[Breach]:
    """Yield the banned phrases in a text: a page, or a source file with its comments and messages."""
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, advice in _BANNED.items():
            if re.search(pattern, line, re.IGNORECASE):
                yield Breach(number, line.strip(), advice)


def main() -> None:
    """Print the breaches in the files and folders that the command line names."""
    for name in sys.argv[1:]:
        for path in [Path(name)] if Path(name).is_file() else sorted(Path(name).rglob("*")):
            if path.suffix in (".py", ".md"):
                breaches = list(breaches_in_text(path.read_text()))
                if path.suffix == ".py" and not path.name.startswith("test_"):
                    breaches += breaches_in_docstrings(path)
                for line, text, rule in breaches:
                    print(f"{path}:{line}: {rule}: {text}")


if __name__ == "__main__":
    main()
