"""Find the files that a Python interpreter reads when it starts.

Source: the documentation of Python, "Command line and environment" and "The initialization of the sys.path
module search path"; PEP 405 (virtual environments).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lazylayer_prefetch_entrypoint.imports import names_in_source
from lazylayer_prefetch_entrypoint.modules import Modules, search_path

if TYPE_CHECKING:
    from lazylayer.api.opened import OpenedFile
    from lazylayer_prefetch_entrypoint.budget import Budget, Files
    from lazylayer_prefetch_entrypoint.command import Command, Started

__all__ = ["Invocation", "find_modules", "is_interpreter", "read_at_start", "read_invocation"]

_PROGRAM = b"/bin/python"
_VERSION = re.compile(rb"^3\.\d{1,3}+$")
_AT_START = (b"encodings", b"encodings.utf_8", b"encodings.aliases", b"site", b"sitecustomize", b"usercustomize")
_WITH_A_WORD = b"WX"
_MAX_NAMED = 32
"""Directories of PYTHONPATH that are searched."""
_APPLICATION = re.compile(rb"^([\w.]{1,512}+):[\w.]*+$")
"""An application as servers take it: `package.module:application`."""


class Invocation(NamedTuple):
    """The program that an interpreter gets: modules by name, or a script, a path."""

    modules: tuple[bytes, ...] = ()
    script: bytes = b""


def is_interpreter(path: bytes) -> bool:
    """Return True if a program is a known Python, by its path without links."""
    return _VERSION.match(path.rpartition(_PROGRAM)[2]) is not None


def read_invocation(arguments: Sequence[bytes], budget: Budget) -> Invocation:
    """Return the program that the words behind the name of an interpreter name. Raises OverBudgetError."""
    words = iter(arguments)
    for word in words:
        if not word.startswith(b"-") or word == b"-":
            return Invocation(tuple(_applications(words)), word.removeprefix(b"-"))
        if word.startswith(b"--"):
            continue
        for number, letter in enumerate(word[1:], 2):
            if letter in b"cm":
                value = word[number:] or next(words, b"")
                if letter in b"c":
                    return Invocation(tuple(names_in_source(value, budget)))
                return Invocation((value, value + b".__main__", *_applications(words)))
            if letter in _WITH_A_WORD:
                if not word[number:]:
                    next(words, None)
                break
    return Invocation()


def _applications(words: Iterator[bytes]) -> Iterator[bytes]:
    for word in words:
        found = _APPLICATION.match(word)
        if found is not None:
            yield found[1]


def find_modules(
    image: Files, started: Started, command: Command, environment: Mapping[bytes, bytes], budget: Budget
) -> Modules:
    """Return the modules that this interpreter, started by a command of the image, finds."""
    assert is_interpreter(started.file.path), "asked for interpreters only"
    prefix, _, version = started.file.path.rpartition(_PROGRAM)
    script = command.place(read_invocation(started.arguments, budget).script or b".")
    named = environment.get(b"PYTHONPATH", b"").split(b":", _MAX_NAMED)[:_MAX_NAMED]
    path = [script.rpartition(b"/")[0], *named]
    home = started.place.rpartition(b"/")[0].rpartition(b"/")[0]
    if image.find(home + b"/pyvenv.cfg") is not None:
        path.append(home + b"/lib/python" + version + b"/site-packages")
    path.extend(search_path(version, [prefix]))
    path.append(command.directory)  # servers look for their application there
    return Modules(image, version, [each for each in path if each.startswith(b"/")], budget)


def read_at_start(
    image: Files, modules: Modules, started: Started, command: Command, budget: Budget
) -> Iterator[OpenedFile]:
    """Yield the files that this interpreter reads first, without those that they import."""
    invocation = read_invocation(started.arguments, budget)
    yield from modules.named([*_AT_START, *invocation.modules], command.directory)
    yield from modules.path_files()
    script = image.find(command.place(invocation.script)) if invocation.script else None
    if script is not None and script.entry.is_file:
        yield script
