"""Which files the command of an image config leads to.

Source: the OCI image specification, config.md (Entrypoint, Cmd, Env, WorkingDir); execvp(3) for names
without a slash, execve(2) for scripts.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazylayer.image import Image, ImageFile

__all__ = ["Command", "environment_of"]

_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELLS = frozenset({b"ash", b"bash", b"dash", b"sh", b"zsh"})
_EXECUTABLE = 0o111
_SHEBANG = 256
_MAX_WORDS = 64
_MAX_WORD = 16 * 1024
_MAX_DIRECTORIES = 64


def environment_of(config: Mapping[str, Any]) -> dict[bytes, bytes]:
    """The variables that a container is started with."""
    return {name: value for name, _, value in (each.partition(b"=") for each in _words(config.get("Env")))}


class Command:
    """What an image runs by default.

    :param config: the `config` object of the image config; whatever is in it.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._words = [*_words(config.get("Entrypoint")), *_words(config.get("Cmd"))][:_MAX_WORDS]
        self._path = environment_of(config).get(b"PATH", _PATH).split(b":")[:_MAX_DIRECTORIES]
        self._directory = (*_words([config.get("WorkingDir")]), b"/")[0]

    def files(self, image: Image) -> Iterator[ImageFile]:
        """The program, and the programs and files among its arguments; only what is there."""
        for number, word in enumerate(self._words):
            yield from self._named(image, word, is_program=number == 0)
        if self._words and self._words[0].rpartition(b"/")[2] in _SHELLS:
            yield from self._named(image, _first_word(_script_of(self._words)), is_program=True)

    def interpreters(self, image: Image, script: ImageFile) -> Iterator[ImageFile]:
        """The programs that a script's first line names: its interpreter, and what `env` is to run."""
        line = script.read(0, _SHEBANG)
        if not line.startswith(b"#!"):
            return
        words = line[2:].partition(b"\n")[0].split()
        for word in words[:1]:
            yield from self._named(image, word, is_program=True)
        if words and words[0].rpartition(b"/")[2] == b"env":
            for word in [each for each in words[1:] if not each.startswith(b"-") and b"=" not in each][:1]:
                yield from self._named(image, word, is_program=True)

    def _named(self, image: Image, word: bytes, *, is_program: bool) -> Iterator[ImageFile]:
        if not word or b"\0" in word:
            return
        if b"/" in word:
            places = [self._directory + b"/" + word if not word.startswith(b"/") else word]
        else:
            places = [directory + b"/" + word for directory in self._path if directory]
            if not is_program:
                places.append(self._directory + b"/" + word)
        for place in places:
            found = image.find(place)
            if found is not None and found.entry.is_file:
                if is_program and not found.entry.mode & _EXECUTABLE:
                    continue
                yield found
                return


def _words(value: object) -> list[bytes]:
    """The texts in a list of a config, whatever it is; without those that are too long for a command's word."""
    texts = [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
    words = [each.encode("utf-8", "replace") for each in texts if len(each) <= _MAX_WORD]
    return [each for each in words if b"\0" not in each]


def _script_of(words: Sequence[bytes]) -> bytes:
    """What a shell is told to run by `-c`, which may stand with other options, as in `-ec`."""
    for option, script in pairwise(words):
        if option.startswith(b"-") and not option.startswith(b"--") and option.endswith(b"c"):
            return script
    return b""


def _first_word(script: bytes) -> bytes:
    """The first command of a shell script, as far as that can be told; `exec` is looked through."""
    lexer = shlex.shlex(script.decode("utf-8", "surrogateescape"), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        return next(
            (each.encode("utf-8", "surrogateescape") for each in lexer if each != "exec" and "=" not in each), b""
        )
    except ValueError:
        return b""
