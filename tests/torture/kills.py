"""Kill the process behind an EROFS mount, its keeper, or both, under readers; then mount again, as an operator would.

Readers read past the page cache all the time and compare. While the keeper lives, no read may fail, however often its
server is killed, not even while it takes the mount over. Where both die, reads may fail until the image is mounted
again; wrong bytes are never right.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from e2e.command_line import CommandLine
from lazylayer_frontends import mountcalls
from torture.campaign import Campaign
from torture.nursery import MountProcess, Nursery
from torture.reader import Read, Reader

__all__ = ["Kills"]

_SIZE = 24 << 20
_READERS = 4
_PATIENCE = 60.0


class Kills(Campaign):
    """Each kind is what is killed; a case is one kill and the mount after it."""

    name = "kills"
    unit = "kills"
    counts = 1_000
    deadline = 180.0
    address_space = 64 << 30
    memory = 256 << 20
    kinds = ("server", "keeper", "both")

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._data = directory / "tree" / "data"
        self._data.parent.mkdir()
        self._data.write_bytes(random.Random(0).randbytes(_SIZE))
        self._settings = {
            "mount.frontend": "frontend_erofs",
            "plugin.frontend_erofs.keeper": "process",
            "plugin.frontend_erofs.local_images": "0",
            "cache.chunks": "cache_memory",
            "cache.ranges": "cache_memory",
            "plugin.cache_memory.max_bytes": "1000000",
            "background.enabled": "false",
            "log.level": "ERROR",
        }
        self._command_line = CommandLine(directory, **self._settings)
        self._image = f"oci:{directory}/image:v"
        self._command_line.run("convert", "--chunk-size", "65536", f"dir:{self._data.parent}", self._image)
        self._mountpoint = directory / "mnt"
        self._mountpoint.mkdir()
        self._nursery = Nursery(directory)
        self._server: MountProcess | None = None
        self._readers: list[_Reading] = []

    def run(self, kind: str, seed: int) -> str:
        """Kill once, mount again, and look at what the readers noticed."""
        choose = random.Random(f"{kind} {seed}")
        if not self._readers:
            if problem := self._mount():
                return problem
            file = str(self._mountpoint / "data")
            self._readers = [_Reading(file, str(self._data), number) for number in range(_READERS)]
        time.sleep(choose.uniform(0.0, 0.1))
        for each in self._readers:
            each.may_fail = kind == "both"
        if kind in ("keeper", "both") and (problem := self._kill_keeper()):
            return problem
        if kind in ("server", "both"):
            self._kill_server()
            time.sleep(choose.choice((0.0, 0.0, 0.05)))
            while choose.random() < 0.3:  # killed again, while it takes over
                self._start()
                time.sleep(choose.uniform(0.0, 0.15))
                self._kill_server()
                self.tried += 1
                self.outcomes[f"{kind}: killed while it mounts"] += 1
            if problem := self._mount():
                return f"mounting again: {problem}"
        self.tried += 1
        return self._wait_for_readers(kind)

    def _start(self) -> MountProcess:
        settings = [f"{key}={value}" for key, value in self._command_line.settings.items()]
        self._server = self._nursery.start(settings, (self._image, self._mountpoint))
        return self._server

    def _mount(self) -> str:
        return self._start().wait(_PATIENCE)

    def _kill_server(self) -> None:
        assert self._server is not None
        self.peak = max(self.peak, self._server.peak())
        assert self._server.end(signal.SIGKILL), "a killed process stays"

    def _kill_keeper(self) -> str:
        """Kill the keeper; without one, mount anew, which starts one. Return what went wrong."""
        pid = self._keeper()
        if not pid:
            for each in self._readers:
                each.may_fail = True
            self._kill_server()
            mountcalls.unmount(str(self._mountpoint), force=True)
            if problem := self._mount():
                return f"mounting anew: {problem}"
            pid = self._keeper()
        if not pid:
            return "there is no keeper"
        os.kill(pid, signal.SIGKILL)
        return ""

    def _keeper(self) -> int:
        """Return the process of the keeper, or 0."""
        path = self._command_line.run_directory / "frontend_erofs" / "keeper.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            try:
                connection.connect(str(path))
            except OSError:
                return 0
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int.from_bytes(credentials[:4], sys.byteorder)

    def _wait_for_readers(self, kind: str) -> str:
        """Return what a reader noticed, once each has read again since now."""
        for each in self._readers:
            each.may_fail = False
        for each in self._readers:
            problem = each.wait_for_progress()
            if problem:
                return problem
            self.outcomes[f"{kind}: right reads"] += each.take_reads()
            if failed := each.take_failures():
                self.outcomes[f"{kind}: reads failed while keeper and server were dead"] += failed
        return ""

    def close(self) -> None:
        """End the readers and the nursery; the runner ends what is left."""
        for each in self._readers:
            each.stop()
        self._nursery.close()


class _Reading:
    """A thread that reads through a process of its own, and compares."""

    def __init__(self, file: str, right: str, seed: int) -> None:
        self.problem = ""
        self.may_fail = False
        self._rounds = self._reads = self._failed = 0
        self._file, self._right = file, right
        self._reader = Reader()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(random.Random(seed),), daemon=True)
        self._thread.start()

    def _run(self, choose: random.Random) -> None:
        while not self._stop.is_set() and not self.problem:
            allowed = self.may_fail
            read = Read(self._file, self._right, choose.randrange(_SIZE), choose.choice((1, 4096, 200_000)))
            try:
                (seen,) = self._reader.read([read])
            except EOFError:
                return
            if seen.outcome == "right":
                self._reads += 1
            elif seen.outcome == "wrong" or not (allowed or self.may_fail):
                self.problem = f"a read of {read.size} bytes at {read.offset}: {seen.outcome}"
            else:
                self._failed += 1
                time.sleep(0.01)
                continue
            self._rounds += 1

    def wait_for_progress(self) -> str:
        """Wait until two more reads went well; return what was wrong."""
        before, deadline = self._rounds, time.monotonic() + _PATIENCE
        while self._rounds <= before + 1:
            if self.problem:
                return self.problem
            if time.monotonic() > deadline:
                return f"a reader waits for more than {_PATIENCE} s"
            time.sleep(0.002)
        return ""

    def take_reads(self) -> int:
        """Return how many reads were right since the last call."""
        reads, self._reads = self._reads, 0
        return reads

    def take_failures(self) -> int:
        """Return how many reads failed where they may since the last call."""
        failed, self._failed = self._failed, 0
        return failed

    def stop(self) -> None:
        """End the thread and its process."""
        self._stop.set()
        self._reader.close()
        self._thread.join()
