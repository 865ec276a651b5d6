"""What a Python interpreter reads when it is started.

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
    from lazylayer.api.opened import OpenedFile, OpenedImage
    from lazylayer_prefetch_entrypoint.command import Command, Started

__all__ = ["Invocation", "find_modules", "is_interpreter", "read_at_start", "read_invocation"]

_INTERPRETER = re.compile(rb"^(?P<prefix>.*)/bin/python(?P<version>3\.\d+)$")
_AT_START = (b"encodings", b"encodings.utf_8", b"encodings.aliases", b"site", b"sitecustomize", b"usercustomize")
_WITH_A_WORD = b"WX"
_APPLICATION = re.compile(rb"^([\w.]+):[\w.]*$")
"""As servers take them: `package.module:application`."""


class Invocation(NamedTuple):
    """What an interpreter is told to run: modules by name, or a script, a path."""

    modules: tuple[bytes, ...] = ()
    script: bytes = b""


def is_interpreter(path: bytes) -> bool:
    """Whether a program is a Python that we know, by its path without links."""
    return _INTERPRETER.match(path) is not None


def read_invocation(arguments: Sequence[bytes]) -> Invocation:
    """What the words behind the name of an interpreter tell it to run."""
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
                    return Invocation(tuple(names_in_source(value)))
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


def find_modules(image: OpenedImage, started: Started, command: Command, environment: Mapping[bytes, bytes]) -> Modules:
    """Where this interpreter, started by a command of the image, looks for modules."""
    found = _INTERPRETER.match(started.file.path)
    assert found is not None, "asked for interpreters only"
    script = command.place(read_invocation(started.arguments).script or b".")
    path = [script.rpartition(b"/")[0], *environment.get(b"PYTHONPATH", b"").split(b":")]
    home = started.place.rpartition(b"/")[0].rpartition(b"/")[0]
    if image.find(home + b"/pyvenv.cfg") is not None:
        path.append(home + b"/lib/python" + found["version"] + b"/site-packages")
    path.extend(search_path(found["version"], [found["prefix"]]))
    path.append(command.directory)  # where servers look for their application
    return Modules(image, found["version"], [each for each in path if each.startswith(b"/")])


def read_at_start(image: OpenedImage, modules: Modules, started: Started, command: Command) -> Iterator[OpenedFile]:
    """The files that this interpreter reads for what it is told to run, without those that they import."""
    invocation = read_invocation(started.arguments)
    yield from modules.named([*_AT_START, *invocation.modules], command.directory)
    yield from modules.path_files()
    script = image.find(command.place(invocation.script)) if invocation.script else None
    if script is not None and script.entry.is_file:
        yield script
