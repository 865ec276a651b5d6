"""Find the files that the command of an image config leads to.

Source: the OCI image specification, config.md (Entrypoint, Cmd, Env, WorkingDir); execvp(3) for names
without a slash, execve(2) for scripts.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import dropwhile, islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from lazylayer.api.opened import OpenedFile
    from lazylayer_prefetch_entrypoint.budget import Files

__all__ = ["Command", "Started", "environment_of"]

_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELLS = frozenset({b"ash", b"bash", b"dash", b"sh", b"zsh"})
_EXECUTABLE = 0o111
_SHEBANG = 256
_MAX_WORDS = 64
_MAX_WORD = 16 * 1024
_MAX_DIRECTORIES = 64
_MAX_SCRIPT = 4096
"""Bytes of a shell script that are looked at: `shlex` takes quadratic time for a long word."""
_PUNCTUATION = frozenset("();<>|&")
"""Characters that end a command, and of which `shlex` makes words of their own."""


class Started(NamedTuple):
    """A file that a command leads to, the path that names it, links and all, and the words behind it."""

    file: OpenedFile
    place: bytes
    arguments: tuple[bytes, ...] = ()


def environment_of(config: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return the variables that a container is started with."""
    return {name: value for name, _, value in (each.partition(b"=") for each in _words(config.get("Env")))}


class Command:
    """The command that an image runs by default.

    :param config: the `config` object of the image config, with anything in it.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._words = [*_words(config.get("Entrypoint")), *_words(config.get("Cmd"))][:_MAX_WORDS]
        self._path = environment_of(config).get(b"PATH", _PATH).split(b":")[:_MAX_DIRECTORIES]
        self.directory = (*_words([config.get("WorkingDir")]), b"/")[0]
        """The working directory."""

    def files(self, image: Files) -> Iterator[Started]:
        """Yield the program, and the programs and files among its arguments, as far as they exist."""
        yield from self._program(image, self._words)
        for word in self._words[1:]:
            yield from self._named(image, word)
        if self._words and self._words[0].rpartition(b"/")[2] in _SHELLS:
            yield from self._program(image, _first_command(_script_of(self._words)))

    def interpreters(self, image: Files, script: OpenedFile, arguments: Sequence[bytes] = ()) -> Iterator[Started]:
        """Yield the programs that a script's first line names: its interpreter, and what `env` is to run.

        :param arguments: the words behind the script.
        """
        line = script.read(0, _SHEBANG)
        if not line.startswith(b"#!"):
            return
        words = line[2:].partition(b"\n")[0].split()
        if words:
            yield from self._program(image, [*words, script.path, *arguments])
        if words and words[0].rpartition(b"/")[2] == b"env":
            rest = dropwhile(lambda each: each.startswith(b"-") or b"=" in each, words[1:])
            yield from self._program(image, [*rest, script.path, *arguments])

    def place(self, word: bytes) -> bytes:
        """Return the path that a word stands for if it is one."""
        return word if word.startswith(b"/") else self.directory + b"/" + word

    def _program(self, image: Files, words: Sequence[bytes]) -> Iterator[Started]:
        """Yield the program that the first word names, if it is executable, with the others as its arguments."""
        for found in self._found(image, words[0], []) if words else ():
            if found.file.entry.mode & _EXECUTABLE:
                yield found._replace(arguments=tuple(words[1:]))
                return

    def _named(self, image: Files, word: bytes) -> Iterator[Started]:
        """Yield the file that an argument names, if it exists."""
        yield from islice(self._found(image, word, [self.directory]), 1)

    def _found(self, image: Files, word: bytes, others: Sequence[bytes]) -> Iterator[Started]:
        if not word or b"\0" in word:
            return
        directories = [each for each in self._path if each]
        places = [each + b"/" + word for each in (*directories, *others)] if b"/" not in word else [self.place(word)]
        for place in places:
            found = image.find(place)
            if found is not None and found.entry.is_file:
                yield Started(found, place)


def _words(value: object) -> list[bytes]:
    """Return the texts in a list of a config, which may be anything, without those too long for a word."""
    texts = [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
    words = [each.encode("utf-8", "replace") for each in texts if len(each) <= _MAX_WORD]
    return [each for each in words if b"\0" not in each]


def _script_of(words: Sequence[bytes]) -> bytes:
    """Return the script that a shell gets by `-c`, which may stand with other options, as in `-ec`."""
    for option, script in pairwise(words):
        if option.startswith(b"-") and not option.startswith(b"--") and option.endswith(b"c"):
            return script
    return b""


def _first_command(script: bytes) -> list[bytes]:
    """Return the words of the first command of a shell script, without `exec` and assignments before it."""
    lexer = shlex.shlex(script[:_MAX_SCRIPT].decode("utf-8", "surrogateescape"), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[bytes] = []
    with suppress(ValueError):  # quotes that are not closed
        for word in lexer:
            if words and set(word) <= _PUNCTUATION:
                break
            if words or (word != "exec" and "=" not in word):
                words.append(word.encode("utf-8", "surrogateescape"))
    return words[:_MAX_WORDS]
