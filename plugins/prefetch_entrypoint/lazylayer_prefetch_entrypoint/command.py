"""Which files the command of an image config leads to.

Source: the OCI image specification, config.md (Entrypoint, Cmd, Env, WorkingDir); execvp(3) for names
without a slash, execve(2) for scripts.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazylayer.image import Image, ImageFile

__all__ = ["Command", "environment_of"]

_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELLS = frozenset({b"ash", b"bash", b"dash", b"sh", b"zsh"})
_EXECUTABLE = 0o111
_SHEBANG = 256
_MAX_WORDS = 64


def environment_of(config: Mapping[str, Any]) -> dict[bytes, bytes]:
    """The variables that a container is started with."""
    pairs = [each.encode("utf-8", "surrogateescape").partition(b"=") for each in _texts(config.get("Env"))]
    return {name: value for name, _, value in pairs}


class Command:
    """What an image runs by default.

    :param config: the `config` object of the image config; whatever is in it.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        words = [*_texts(config.get("Entrypoint")), *_texts(config.get("Cmd"))][:_MAX_WORDS]
        self._words = [each.encode("utf-8", "surrogateescape") for each in words]
        self._path = environment_of(config).get(b"PATH", _PATH).split(b":")
        directory = config.get("WorkingDir")
        self._directory = directory.encode("utf-8", "surrogateescape") if isinstance(directory, str) else b"/"

    def files(self, image: Image) -> Iterator[tuple[bytes, ImageFile]]:
        """The program, and the programs and files among its arguments, each with its path; only what is there."""
        for number, word in enumerate(self._words):
            yield from self._named(image, word, is_program=number == 0)
        if self._words and self._words[0].rpartition(b"/")[2] in _SHELLS and b"-c" in self._words[:-1]:
            yield from self._named(image, _first_word(self._words[self._words.index(b"-c") + 1]), is_program=True)

    def interpreters(self, image: Image, script: ImageFile) -> Iterator[tuple[bytes, ImageFile]]:
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

    def _named(self, image: Image, word: bytes, *, is_program: bool) -> Iterator[tuple[bytes, ImageFile]]:
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
                yield place, found
                return


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, Sequence) else []


def _first_word(script: bytes) -> bytes:
    """The first command of a shell script of one line, as far as that can be told; `exec` is looked through."""
    try:
        words = shlex.split(script.decode("utf-8", "surrogateescape"), comments=True)
    except ValueError:
        return b""
    names = [each for each in words if each != "exec" and "=" not in each]
    return names[0].encode("utf-8", "surrogateescape") if names else b""
