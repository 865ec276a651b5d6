"""Build the image of the cold starts once: a minimal Debian, and a layer with Python and numpy."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from suite.machine import require

__all__ = ["WORKLOAD", "build_layers", "debian_suite"]

WORKLOAD = ("/usr/bin/python3", "-c", "import numpy; print(numpy.ones(3).sum())")
"""The command of a container of the image."""

_ADDED = "python3,python3-numpy"
_EMPTIED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "dev", "proc", "sys", "run")


def debian_suite() -> str:
    """Return the code name of this machine's Debian."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME="))


def build_layers(work: Path) -> list[Path]:
    """Return the two tar archives below `work`, lowest first; build missing ones with debootstrap.

    Raises MissingError if that needs more than this machine has.
    """
    layers = [work / "debian.tar", work / "numpy.tar"]
    if all(layer.exists() for layer in layers):
        return layers
    require("root", "debootstrap")
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work, prefix="building-") as scratch:
        lower, upper = Path(scratch, "lower"), Path(scratch, "upper")
        for root, options in ((lower, []), (upper, [f"--include={_ADDED}"])):
            command = ["debootstrap", "--variant=minbase", *options, debian_suite(), str(root)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            _empty(root)
        _pack(lower, [b"."], layers[0])
        _pack(upper, list(_changed(os.fsencode(lower), os.fsencode(upper))), layers[1])
    return layers


def _empty(root: Path) -> None:
    for name in _EMPTIED:
        shutil.rmtree(root / name)
        (root / name).mkdir(mode=0o755)


def _changed(lower: bytes, upper: bytes) -> Iterator[bytes]:
    """Yield the names below `upper` that are missing or different in `lower`."""
    for directory, names, files in os.walk(upper):
        for name in sorted(names + files):
            path = directory + b"/" + name
            relative = os.path.relpath(path, upper)
            if _facts(path) != _facts(lower + b"/" + relative):
                yield relative


def _facts(path: bytes) -> tuple[object, ...]:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return ()
    if stat.S_ISREG(status.st_mode):
        return (status.st_mode, status.st_uid, status.st_size, Path(os.fsdecode(path)).read_bytes())
    target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else b""  # noqa: PTH115 - bytes
    return (status.st_mode, status.st_uid, target)


def _pack(root: Path, names: list[bytes], archive: Path) -> None:
    command = ["tar", "--create", "--file", "-", "--directory", str(root), "--null", "--files-from=-"]
    options = ["--sort=name", "--numeric-owner"] if names == [b"."] else ["--no-recursion", "--numeric-owner"]
    with archive.with_suffix(".new").open("wb") as file:
        subprocess.run([*command[:2], *options, *command[2:]], input=b"\0".join(names), stdout=file, check=True)
    archive.with_suffix(".new").rename(archive)
