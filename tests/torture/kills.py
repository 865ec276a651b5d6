"""Kill the process behind an EROFS mount, its keeper, or both, under readers; then mount again, as an operator would.

Readers read past the page cache all the time and compare. While the keeper lives, no read may fail, however often its
server is killed. Where both die, reads may fail until the image is mounted again; wrong bytes are never right.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from e2e.command_line import CommandLine
from lazylayer_frontends import mountcalls
from torture.campaign import Campaign
from torture.reader import Reader

__all__ = ["Kills"]

_SIZE = 24 << 20
_READERS = 4
_PATIENCE = 60.0


class Kills(Campaign):
    """Each kind is what is killed; a case is one kill and the mount after it."""

    name = "kills"
    counts = 500
    deadline = 180.0
    memory = 64 << 30
    kinds = ("server", "keeper", "both")

    def __init__(self) -> None:
        super().__init__()
        self._directory = Path(tempfile.mkdtemp(prefix="torture-", dir="/var/tmp"))
        self._data = random.Random(0).randbytes(_SIZE)
        tree = self._directory / "tree"
        tree.mkdir()
        (tree / "data").write_bytes(self._data)
        self._command_line = CommandLine(
            self._directory,
            **{
                "mount.frontend": "frontend_erofs",
                "plugin.frontend_erofs.keeper": "process",
                "plugin.frontend_erofs.local_images": "0",
                "cache.chunks": "cache_memory",
                "plugin.cache_memory.max_bytes": "1000000",
                "background.enabled": "false",
            },
        )
        self._image = f"oci:{self._directory}/image:v"
        self._command_line.run("convert", "--chunk-size", "65536", f"dir:{tree}", self._image)
        self._mountpoint = self._directory / "mnt"
        self._mountpoint.mkdir()
        self._readers: list[_Reading] = []

    def run(self, kind: str, seed: int) -> str:
        """Kill once, mount again, and look at what the readers noticed."""
        choose = random.Random(f"{kind} {seed}")
        if not self._readers:
            self._mount()
            file = self._mountpoint / "data"
            self._readers = [_Reading(file, self._data, number) for number in range(_READERS)]
        time.sleep(choose.uniform(0.0, 0.2))
        may_fail = kind == "both"
        for each in self._readers:
            each.may_fail = may_fail
        if kind in ("keeper", "both") and not self._kill_keeper():
            self.rare[f"{kind}: there was no keeper"] += 1
            self._mount_anew()
            self._kill_keeper()
        if kind in ("server", "both"):
            self._kill_servers()
            time.sleep(choose.choice((0.0, 0.0, 0.1)))
            self._mount()
        return self._wait_for_readers()

    def _mount(self) -> None:
        self._command_line.run("mount", self._image, self._mountpoint)

    def _mount_anew(self) -> None:
        for each in self._readers:
            each.may_fail = True
        self._command_line.run("umount", "--force", self._mountpoint)
        self._mount()

    def _kill_servers(self) -> None:
        for process in (self._command_line.run_directory / "processes").iterdir():
            with suppress(ProcessLookupError):  # what a killed process left behind
                os.kill(int(process.name), signal.SIGKILL)

    def _kill_keeper(self) -> bool:
        """Return False if there is no keeper."""
        path = self._command_line.run_directory / "frontend_erofs" / "keeper.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            try:
                connection.connect(str(path))
            except OSError:
                return False
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            os.kill(int.from_bytes(credentials[:4], sys.byteorder), signal.SIGKILL)
        return True

    def _wait_for_readers(self) -> str:
        """Return what a reader noticed, once each has read again since now."""
        for each in self._readers:
            each.may_fail = False
            before = each.reads
            deadline = time.monotonic() + _PATIENCE
            while each.reads <= before + 1:
                if each.problem:
                    return each.problem
                if time.monotonic() > deadline:
                    return f"a reader waits for more than {_PATIENCE} s"
                time.sleep(0.01)
            if each.failed:
                self.rare["reads failed while keeper and server were dead"] += 1
        return ""

    def close(self) -> None:
        """Unmount, and end everything."""
        for each in self._readers:
            each.stop()
        self._command_line.run("umount", "--force", self._mountpoint, check=False)
        self._kill_servers()
        self._kill_keeper()
        with suppress(OSError):  # until nothing is mounted there
            while True:
                mountcalls.unmount(str(self._mountpoint), force=True)
        shutil.rmtree(self._directory, ignore_errors=True)


class _Reading:
    """A thread that reads through a process of its own, and compares."""

    def __init__(self, file: Path, data: bytes, seed: int) -> None:
        self.problem = ""
        self.reads = 0
        self.failed = 0
        self.may_fail = False
        self._file, self._data = file, data
        self._reader = Reader()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(random.Random(seed),), daemon=True)
        self._thread.start()

    def _read(self, choose: random.Random) -> None:
        while not self._stop.is_set() and not self.problem:
            offset, size = choose.randrange(_SIZE), choose.choice((1, 4096, 200_000))
            allowed = self.may_fail
            try:
                got = self._reader.read(self._file, offset, size)
            except OSError as error:
                self.failed += 1
                if not (allowed or self.may_fail):
                    self.problem = f"a read failed: {errno.errorcode.get(error.errno or 0, error)}"
                time.sleep(0.05)
                continue
            except (ValueError, BrokenPipeError):
                return  # the reader was closed
            if got != self._data[offset : offset + size]:
                self.problem = f"wrong bytes at {offset}"
            self.reads += 1

    def stop(self) -> None:
        """End the thread and its process."""
        self._stop.set()
        self._reader.close()
        self._thread.join()
