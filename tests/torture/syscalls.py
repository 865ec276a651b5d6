"""The N-th system call of a piece of work fails, or kills the process; each call in turn.

strace injects: an error (EIO, ENOSPC, EMFILE, EINTR), a short count, or SIGKILL, which is a crash at that step. The
work must end with what a user expects or with an error of ours, and after it, without strace, the same directory must
serve the right bytes: nothing half-written is believed, and nothing keeps failing.
"""

from __future__ import annotations

import hashlib
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from e2e.command_line import CommandLine
from lazylayer.errors import LazylayerError
from lazylayer.program import Program
from torture.campaign import Campaign
from torture.workload import WORK

__all__ = ["Crashes", "Syscalls"]

_SIZE = 400_000
_ERRORS = ("error=EIO", "error=ENOSPC", "error=EMFILE", "error=EINTR", "error=EACCES", "retval=1", "signal=SIGKILL")
_CALLS = (
    "openat", "read", "pread64", "write", "writev", "rename", "fsync", "ftruncate", "unlink", "mkdir", "newfstatat",
    "fstat", "close", "utimensat", "lseek", "flock", "fcntl", "getdents64", "statfs", "mmap", "futex",
)  # fmt: skip
_NOT_SHORT = frozenset(["openat", "mmap", "futex", "close"])
"""A wrong positive result of these is no short count: it is a kernel that lies."""
_CHANGES = (
    "openat", "write", "writev", "pwrite64", "rename", "fsync", "fdatasync", "ftruncate", "fallocate", "unlink",
    "unlinkat", "mkdir", "rmdir", "utimensat", "chmod", "flock",
)  # fmt: skip
"""The calls that change what is on the disk, or who may."""
_DEPTH = 60
"""Number of calls of each name that are made to fail, one by one."""
_PATIENCE = 60.0
_READY = b"ready "


class Syscalls(Campaign):
    """Each kind is a piece of work; a case is one call that goes wrong."""

    name = "syscalls"
    unit = "system calls"
    counts = len(_ERRORS) * len(_CALLS) * _DEPTH
    deadline = 120.0
    address_space = 64 << 30
    kinds: Sequence[str] = ("read", "commit", "collect")

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        tree = self.directory / "tree"
        tree.mkdir()
        data = random.Random(0).randbytes(_SIZE)
        (tree / "data").write_bytes(data)
        self._image = f"oci:{self.directory}/image:v"
        CommandLine(self.directory / "made").run("convert", "--chunk-size", "65536", f"dir:{tree}", self._image)
        Program.load(overrides=[f"root={directory}/loaded", f"run={directory}/loaded"]).close()  # imports the plugins
        self._expected = dict.fromkeys(WORK, "done whole or missing")
        self._expected["read"] = f"done {hashlib.sha256(data).hexdigest()}"
        self._last: dict[tuple[str, str], int] = {}
        """By kind and call: a number that the work does not reach."""

    def run(self, kind: str, seed: int) -> str:
        """Let one system call go wrong; return what was wrong with the answers."""
        call, how, when = self._injection(seed)
        if not how or when > self._last.get((kind, call), when):
            return ""
        home = self.directory / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        said, injected = self._work(kind, home, f"inject={call}:{how}:when={when}")
        if injected:
            self.tried += 1
            self.outcomes[f"{kind}: {how} at {call}"] += 1
        else:
            self._last[kind, call] = when
        if said.startswith(("escaped", "hangs")) or (said.startswith("done ") and said != self._expected[kind]):
            return f"{call} {when} {how}: {said}"
        if not said and how != "signal=SIGKILL" and injected:
            return f"{call} {when} {how}: the process said nothing"
        again, _ = self._work(kind, home, "")
        return "" if again == self._expected[kind] else f"after {call} {when} {how} ({said}): {again}"

    def _injection(self, seed: int) -> tuple[str, str, int]:
        """Return the call that goes wrong, how, and which one of its name."""
        number = seed - 1
        how = _ERRORS[number % len(_ERRORS)]
        call = _CALLS[number // len(_ERRORS) % len(_CALLS)]
        if how == "retval=1" and call in _NOT_SHORT:
            how = ""
        return call, how, number // (len(_ERRORS) * len(_CALLS)) + 1

    def _work(self, kind: str, home: Path, inject: str) -> tuple[str, bool]:
        """Do the work in a child, under strace if `inject` is not empty; return what it said, and if strace struck."""
        log = self.directory / "strace.log"
        log.unlink(missing_ok=True)
        answers, answer = socket.socketpair()
        go, let_go = os.pipe()
        child = os.fork()
        if child == 0:
            _child(kind, home, self._image, go, answer)
        answer.close()
        os.close(go)
        tracer = self._trace(child, inject, log) if inject and select.select([answers], [], [], _PATIENCE)[0] else None
        os.write(let_go, b"x")
        os.close(let_go)
        said = _read_all(answers, time.monotonic() + _PATIENCE).removeprefix(_READY).decode(errors="replace").strip()
        answers.close()
        if said.startswith("hangs"):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if tracer is not None:
            tracer.wait()
        injected = log.exists() and b"INJECTED" in log.read_bytes()
        return said, injected or os.WIFSIGNALED(status)

    @staticmethod
    def _trace(pid: int, inject: str, log: Path) -> subprocess.Popen[bytes]:
        name = inject.removeprefix("inject=").partition(":")[0]
        command = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={name}", "-e", inject, "-p", str(pid)]
        tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        status = Path(f"/proc/{pid}/status")
        while f"TracerPid:\t{tracer.pid}" not in status.read_text() and tracer.poll() is None:
            time.sleep(0.001)
        return tracer

    @classmethod
    def available(cls) -> str:
        """Return why this machine cannot run it, or an empty string."""
        return "" if shutil.which("strace") else "there is no strace; install it"


class Crashes(Syscalls):
    """Each kind is a piece of work; a case is a crash at one of the calls that change the disk, in turn."""

    name = "crashes"
    unit = "crashes"
    counts = len(_CHANGES) * _DEPTH
    kinds = ("commit", "collect", "image", "snapshots")

    def _injection(self, seed: int) -> tuple[str, str, int]:
        number = seed - 1
        return _CHANGES[number % len(_CHANGES)], "signal=SIGKILL", number // len(_CHANGES) + 1


def _child(kind: str, home: Path, image: str, go: int, answer: socket.socket) -> NoReturn:
    """Prepare, wait to be let go, work, and say what came. Waits and speaks by calls that are left alone."""
    try:
        with WORK[kind](home, image) as work:
            answer.sendall(_READY)
            select.select([go], [], [])
            try:
                said = f"done {work()}"
            except (LazylayerError, OSError) as error:
                said = f"failed {type(error).__name__}: {error}"
            except BaseException as error:
                said = f"escaped {type(error).__name__}: {error}"
            answer.sendall(said.encode())
    finally:
        os._exit(0)


def _read_all(connection: socket.socket, deadline: float) -> bytes:
    data = b""
    while select.select([connection], [], [], max(deadline - time.monotonic(), 0))[0]:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece
    return b"hangs"
