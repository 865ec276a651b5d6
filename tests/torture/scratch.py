"""A directory of one campaign process, and the end of all that the process leaves: processes, mounts, files.

A case that hangs is ended from outside, and cleans nothing up. What it started carries the directory's name in its
environment, or belongs to its session; what it mounted lies below the directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from lazylayer_frontends import mountcalls

__all__ = ["ENDING", "MARK", "Scratch"]

ENDING = threading.Event()
"""Set when the run is to end early: all children are killed."""

MARK = "TORTURE_SCRATCH"
"""The environment variable with the directory's name, in every process that a campaign starts."""

_SECONDS = 10.0


class Scratch:
    """A new directory on a disk, empty of processes and mounts again at the end of the `with` block."""

    def __init__(self, name: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"torture-{name}-", dir="/var/tmp"))
        self._session = 0

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_processes()
        self._unmount()
        shutil.rmtree(self.directory, ignore_errors=True)

    def mark_this_process(self) -> None:
        """Let what this process starts be found again."""
        os.environ[MARK] = str(self.directory)

    def wait_for(self, child: int, progress: Callable[[], int], deadline: float) -> int:
        """Wait for a child that leads its session, and return its exit status.

        One that makes no progress for `deadline` seconds is killed with all that it started, its mounts first: a
        process that waits for a mount of its own does not end before that.
        """
        self._session = child
        pause, seen, since = 0.001, -1, time.monotonic()
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if (now := progress()) != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > deadline or ENDING.is_set():
                self._end_processes()
                self._unmount()
                os.kill(child, signal.SIGKILL)
            time.sleep(pause)
            pause = min(pause * 2, 0.1)

    def branches(self) -> Counter[str]:
        """Return how often each rare branch ran in this process and in those that it started."""
        try:
            return Counter((self.directory / "branches").read_text(errors="replace").split("\n")[:-1])
        except FileNotFoundError:
            return Counter()

    def _end_processes(self) -> None:
        deadline = time.monotonic() + _SECONDS
        while (pids := self._processes()) and time.monotonic() < deadline:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
            self._unmount()

    def _processes(self) -> list[int]:
        return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit() and self._is_ours(each)]

    def _is_ours(self, process: Path) -> bool:
        try:
            state, _, _, session = (process / "stat").read_text().rpartition(")")[2].split()[:4]
            if state == "Z" or int(process.name) == os.getpid():
                return False
            mark = f"{MARK}={self.directory}".encode()
            return (self._session and int(session) == self._session) or mark in (process / "environ").read_bytes()
        except OSError:
            return False

    def _unmount(self) -> None:
        prefix = f"{self.directory}/"
        lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
        mountpoints = [line.split()[1] for line in lines]
        for each in sorted((each for each in mountpoints if each.startswith(prefix)), key=len, reverse=True):
            with suppress(OSError):
                mountcalls.unmount(each, force=True)
