"""Look at a mount from another process, as another user if asked: part of the conformance kit.

Mapping a file into memory or executing it must not happen in the process that serves the mount: the
kernel would wait for a server that waits for Python's lock. That process runs this file as a script,
without the packages around it, so that it starts in a moment.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["NOBODY_UID", "ask"]

NOBODY_UID = 65534
_SECONDS = 120


def ask(question: str, path: str, *, uid: int = 0, gid: int | None = None, groups: tuple[int, ...] = ()) -> Any:
    """Return what a new process of the given user finds at `path`; `question` is a name of `_QUESTIONS`.

    The answer to an OSError is the name of its number, such as `EACCES`.
    """
    identity = json.dumps([uid, uid if gid is None else gid, list(groups)])
    done = subprocess.run(
        [sys.executable, "-I", "-S", __file__, question, path, identity],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _read(path: str) -> str:
    return Path(path).read_bytes().decode("latin-1")


def _mapped(path: str) -> str:
    import hashlib

    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        backwards = hashlib.sha256()
        for start in reversed(range(0, len(mapped), 10_000)):
            backwards.update(mapped[start : start + 10_000])
        return backwards.hexdigest()


def _listed(path: str) -> list[str]:
    return sorted(os.listdir(path))


def _access(path: str) -> list[bool]:
    return [os.access(path, mode) for mode in (os.F_OK, os.R_OK, os.X_OK)]


def _output(path: str) -> str:
    return subprocess.run([path, "-u"], capture_output=True, text=True, check=True, timeout=_SECONDS).stdout


def _open_device(path: str) -> str:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.write(descriptor, b"x")
        return os.read(descriptor, 1).decode()
    finally:
        os.close(descriptor)


_QUESTIONS: dict[str, Callable[[str], Any]] = {
    "access": _access,
    "device": _open_device,
    "listed": _listed,
    "mapped": _mapped,
    "output": _output,
    "read": _read,
}


def _main() -> None:
    question, path, identity = sys.argv[1:]
    uid, gid, groups = json.loads(identity)
    if uid != os.geteuid():
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)
    try:
        answer = _QUESTIONS[question](path)
    except OSError as error:
        answer = errno.errorcode.get(error.errno or 0, str(error))
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _main()
