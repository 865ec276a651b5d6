"""Processes that mount an image and serve it until they end, forked from one that has all modules loaded.

They do what `lazylayer mount` does, which starts two interpreters for each mount. What is forked has one thread and no
state. SIGTERM unmounts; SIGKILL is a crash.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from loguru import logger

from lazylayer.api.oci import parse_reference
from lazylayer.errors import LazylayerError
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.program import Program

__all__ = ["MountProcess", "Nursery"]

_PAUSE = 0.002


class MountProcess(NamedTuple):
    """A process that mounts, or has mounted."""

    pid: int
    said: Path

    def wait(self, seconds: float) -> str:
        """Wait until it has mounted; return why it could not, or an empty string. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not self.said.exists():
            if not self.lives:
                return "it died"
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing was mounted for {seconds:g} s")
            time.sleep(_PAUSE)
        return self.said.read_text()

    @property
    def lives(self) -> bool:
        """Return True if it has not ended."""
        return Path(f"/proc/{self.pid}").exists()

    def end(self, number: signal.Signals, seconds: float = 20.0) -> bool:
        """Send a signal, and return True if it has ended in time."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + seconds
        while self.lives and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        return not self.lives

    def peak(self) -> int:
        """Return the most memory that it had, in bytes; 0 if it has ended."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


class Nursery:
    """Starts such processes. Used by one thread.

    :param directory: where they leave word of what they did.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        command = [sys.executable, "-m", "torture.nursery"]
        path = os.pathsep.join([str(Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
        )

    def start(self, overrides: Sequence[str], *mounts: tuple[str, Path]) -> MountProcess:
        """Start a process that mounts images, each at its mountpoint."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._count += 1
        said = self._directory / f"mounted-{self._count}"
        print(json.dumps([overrides, mounts, str(said)], default=str), file=self._process.stdin, flush=True)
        return MountProcess(int(self._process.stdout.readline()), said)

    def close(self) -> None:
        """End the nursery; the processes stay."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.kill()
        self._process.stdin.close()
        self._process.stdout.close()  # its children have the other end too
        self._process.wait()


def _mount(overrides: Sequence[str], mounts: Sequence[tuple[str, str]], said: Path) -> NoReturn:
    logger.remove()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    word = said.with_name(f"{said.name}.new")
    try:
        with Program.load(overrides=overrides) as program:
            filesystem = Filesystem(program)
            try:
                for image, mountpoint in mounts:
                    filesystem.mount_image(mountpoint, parse_reference(image))
                word.touch()
                word.rename(said)
                signal.sigwait({signal.SIGTERM})
            except LazylayerError as error:
                word.write_text(str(error) or repr(error))
                word.rename(said)
            finally:
                filesystem.close()
    finally:
        os._exit(0)


def _serve() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    loaded = False
    for line in sys.stdin:
        overrides, mounts, said = json.loads(line)
        if not loaded:
            Program.load(overrides=overrides).close()  # imports the plugins, once for all children
            loaded = True
        child = os.fork()
        if child == 0:
            os.close(0)
            _mount(overrides, mounts, Path(said))
        print(child, flush=True)


if __name__ == "__main__":
    _serve()
