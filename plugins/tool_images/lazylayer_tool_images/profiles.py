"""Name the files of an image to put first: by a profile, in the order of a workload's reads, or by globs.

A profile is a text file of JSON lines, each `{"path": …, "layerIndex": …}`, as `--record` writes it, and the Go tool's
`ctr-remote image optimize --record-out`. Other fields are ignored. `layerIndex` is 0 for the lowest layer; a path
without it is looked for in every layer.

Globs know `?`, `*`, `[…]` within a name and `**` for any number of directories.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from lazylayer.api.tree import clean_path
from lazylayer.errors import BuildError

__all__ = ["ProfileEntry", "compile_globs", "read_profile", "write_profile"]

_MAX_PROFILE = 256 * 1024 * 1024


class ProfileEntry(msgspec.Struct, frozen=True):
    """A file that was read: its clean path, and its layer, or None if that is unknown."""

    path: bytes
    layer: int | None = None


def read_profile(path: Path) -> list[ProfileEntry]:
    """Return the files that a profile names, first read first, each once. Raises BuildError or OSError."""
    if path.stat().st_size > _MAX_PROFILE:
        raise BuildError(f"{path}: larger than {_MAX_PROFILE} bytes, so it is not a record of files read")
    entries: dict[ProfileEntry, None] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                entries[_parse(line, f"{path}, line {number}")] = None
    return list(entries)


def write_profile(path: Path, entries: Iterable[ProfileEntry]) -> None:
    """Write a profile that `read_profile` reads."""
    with path.open("w", encoding="ascii") as file:
        for entry in entries:
            fields: dict[str, object] = {"path": os.fsdecode(entry.path)}
            if entry.layer is not None:
                fields["layerIndex"] = entry.layer
            file.write(json.dumps(fields) + "\n")


def _parse(line: bytes, where: str) -> ProfileEntry:
    try:
        fields = json.loads(line)
        name, layer = fields["path"], fields.get("layerIndex")
        if not isinstance(name, str) or not (layer is None or isinstance(layer, int)):
            raise TypeError("its fields are of other types")
        return ProfileEntry(clean_path(os.fsencode(name)), layer)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BuildError(f'{where}: not a record such as {{"path": "bin/sh", "layerIndex": 0}}: {error!r}') from None


def compile_globs(globs: Iterable[bytes]) -> list[re.Pattern[bytes]]:
    """Return patterns that match whole, clean paths as the globs say. Raises BuildError for an invalid glob."""
    patterns = []
    for glob in globs:
        try:
            patterns.append(re.compile(b"".join(_translate(glob.strip(b"/"))), re.DOTALL))
        except re.error as error:
            raise BuildError(f"invalid glob {glob!r}: {error}") from None
    return patterns


def _translate(glob: bytes) -> Iterator[bytes]:
    parts = glob.split(b"/")
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == b"**":
            yield rb".+" if last else rb"(?:[^/]+/)*"
            continue
        at = 0
        while at < len(part):
            letter = part[at : at + 1]
            at += 1
            close = part.find(b"]", at + (2 if part[at : at + 1] in (b"!", b"^") else 1)) if letter == b"[" else -1
            if letter == b"*":
                yield rb"[^/]*"
            elif letter == b"?":
                yield rb"[^/]"
            elif close > 0:
                inside = part[at:close].replace(b"\\", rb"\\").replace(b"[", rb"\[").replace(b"&", rb"\&")
                yield rb"(?!/)[" + (b"^" + inside[1:] if inside[:1] in (b"!", b"^") else inside) + b"]"
                at = close + 1
            else:
                yield re.escape(letter)
        if not last:
            yield b"/"
