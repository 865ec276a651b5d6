"""Layers, labels and image configs that a prefetch policy is asked about: part of the conformance kit."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping
from typing import Any

from lazylayer.api.labels import PREFETCH_SIZE
from lazylayer_testing.synthetic import SyntheticLayer

__all__ = ["CONFIGS", "LABELS", "LAYERS", "make_layer", "make_layers"]


def _noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - no secret


_SCRIPT = b"#!/bin/sh\nexec /app/run --now\n"
_PROGRAMS: dict[bytes, bytes] = {
    b"bin/sh": b"\x7fELF\x02\x01\x01" + bytes(9) + _noise(3000, 1),  # an ELF header, and then nonsense
    b"bin/env": b"\x7fELF",
    b"app/run": _SCRIPT + _noise(2500, 2),
    b"app/endless": b"#!/app/endless\n",
    b"app/wide": b"#!" + b"x" * 5000,
    b"usr/bin/python3.11": b"\x7fELF\x01\x02" + _noise(100, 3),
}
_FILES: dict[bytes, bytes] = {
    **_PROGRAMS,
    b"app/main.py": b"import os, os.path, main\nfrom . import sibling\n" + _noise(700, 4),
    b"app/__pycache__/main.cpython-311.pyc": _noise(900, 5),
    b"etc/ld.so.cache": b"glibc-ld.so.cache1.1" + _noise(600, 6),
    b"usr/lib/libc.so.6": b"\x7fELF\x02\x01\x01" + b"\xff" * 2000,
    b"data/empty": b"",
    b"data/\xff\xfe not utf-8": b"x" * 1500,
    b"data/large": _noise(50_000, 7),
}
_LINKS: dict[bytes, bytes] = {
    b"bin/loop": b"loop",
    b"bin/there": b"back",
    b"bin/back": b"there",
    b"bin/outside": b"../../../../bin/sh",
    b"bin/nowhere": b"/no/such/file",
    b"bin/python": b"/usr/bin/python3.11",
}
LAYERS: Mapping[str, Mapping[str, Any]] = {
    "empty": {"files": {}},
    "one empty file": {"files": {b"empty": b""}},
    "one byte": {"files": {b"one": b"1"}},
    "programs": {"files": _FILES, "links": _LINKS, "programs": tuple(_PROGRAMS)},
    "packed": {"files": _FILES, "links": _LINKS, "programs": tuple(_PROGRAMS), "pack": 20_000},
    "without digests": {"files": {b"a": _noise(5000, 8)}, "digests": False},
    "many": {"files": {b"many/%d" % number: b"%d" % number for number in range(300)}},
}
"""The arguments of `SyntheticLayer`, by what is special about the layer."""

_NUMBERS = ["", "0", "500", "99999999", str(2**63), "9" * 5000]
_NO_NUMBERS = ["-1", "1.5", "1e9", "0x10", "nonsense", "٤٢", " 5 ", "5\n"]
LABELS: tuple[Mapping[str, str], ...] = (
    {},
    *({PREFETCH_SIZE: size} for size in (*_NUMBERS, *_NO_NUMBERS)),
    {"": "", "=": "=", "no such label": "\0", "containerd.io/snapshot/" + "x" * 5000: "y" * 100_000},
)
"""Labels of a mount that are ordinary, odd or hostile."""

CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "nothing": {},
    "a program": {"Entrypoint": ["/bin/sh"], "Cmd": ["-c", "run --now"], "Env": ["PATH=/app:/bin"]},
    "a script": {"Entrypoint": ["run"], "Env": ["PATH=/app"], "WorkingDir": "/app"},
    "python": {"Cmd": ["python", "main.py", "-m", "main"], "WorkingDir": "/app", "Env": ["PYTHONPATH=/app::/"]},
    "its own interpreter": {"Cmd": ["/app/endless"]},
    "a wide first line": {"Cmd": ["/app/wide"]},
    "links in a circle": {"Cmd": ["/bin/loop", "/bin/there", "/bin/nowhere", "/bin/outside"]},
    "a directory": {"Cmd": ["/bin"], "WorkingDir": "/bin/sh"},
    "what is not there": {"Entrypoint": ["/no/such/program"], "Cmd": ["nor/this"]},
    "empty words": {"Entrypoint": ["", "\0", "/", "//", "."], "Cmd": [""], "Env": ["", "=", "PATH", "PATH="]},
    "replaced characters": {"Cmd": ["/data/\ufffd\ufffd not utf-8", "\ufffe", "\u202e"]},
    "long": {"Cmd": ["/bin/sh", "x" * 1_000_000, *(["y"] * 10_000)], "Env": ["PATH=" + "/a:" * 50_000]},
    "no lists": {"Entrypoint": "/bin/sh", "Cmd": 5, "Env": {"PATH": "/bin"}, "WorkingDir": ["/"]},
    "null": {"Entrypoint": None, "Cmd": None, "Env": None, "WorkingDir": None},
    "nested": {"Entrypoint": [["/bin/sh"]], "Cmd": [None, 1, True, {}], "Env": [["PATH"]], "WorkingDir": {}},
    "away": {"Cmd": ["../../../../bin/sh"], "WorkingDir": "../../../.."},
}
"""The `config` objects of image configs: all that a registry may send."""


@functools.cache
def make_layer(name: str) -> SyntheticLayer:
    """Return the layer of this name, which nothing changes."""
    return SyntheticLayer(**LAYERS[name])


def make_layers() -> list[SyntheticLayer]:
    """Return the layers of the image that is prefetched, lowest first."""
    return [make_layer("many"), make_layer("programs")]
