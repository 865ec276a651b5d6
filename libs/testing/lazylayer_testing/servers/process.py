"""A server program as a child process: start it, wait until it answers, stop it by its pid.

What it prints goes to a log file, and the end of that log is in every error, so that a server that
does not start says why. A child is also told to end when the thread that started it ends (as
`setpriv --pdeathsig` does), so that a killed test run leaves no server behind: start servers from a
thread that outlives them, such as the main thread.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_POLL_SECONDS = 0.02
_LOG_TAIL_BYTES = 8192


class ServerError(RuntimeError):
    """A server or one of its client programs failed; the message ends with what it printed."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nothing listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def accepts_connections(port: int) -> bool:
    """Return True if something listens on this TCP port of 127.0.0.1."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Return as soon as `condition()` is true; raise ServerError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ServerError(f"{what}: not within {seconds:g} s")
        time.sleep(_POLL_SECONDS)


def run(command: Sequence[str | Path], *, seconds: float = 300.0) -> str:
    """Run a client program to its end and return its standard output.

    Raises ServerError with both its outputs when it fails or takes longer than `seconds`.
    """
    words = [str(word) for word in command]
    try:
        finished = subprocess.run(words, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds)
    except FileNotFoundError:
        raise ServerError(f"{words[0]} is not installed: run scripts/debian-packages test") from None
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"{' '.join(words)}: not finished within {seconds:g} s") from error
    if finished.returncode != 0:
        printed = (finished.stdout + finished.stderr).decode(errors="replace")
        raise ServerError(f"{' '.join(words)}: exit code {finished.returncode}\n{printed}")
    return finished.stdout.decode(errors="surrogateescape")


class ServerProcess:
    """One child process that serves until it is stopped. It can be started again after that.

    `ready` is asked again and again after a start until it says True; it must not block for long.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        start_seconds: float = 30.0,
    ) -> None:
        self.command = [str(word) for word in command]
        self.log = log
        self._ready = ready
        self._environment = environment
        self._start_seconds = start_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; ServerError when it is not running."""
        if self._process is None:
            raise ServerError(f"{self.command[0]} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return True if it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and return when it is ready; ServerError, with its log, when it never is."""
        if self.running:
            raise ServerError(f"{self.command[0]} is already running as {self.pid}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "TERM", "--", *self.command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                )
            except FileNotFoundError:
                raise ServerError("setpriv is not installed: it is in Debian's util-linux") from None
        try:
            wait_until(self._ready_or_ended, f"{self.command[0]} answers", self._start_seconds)
            if not self.running:
                raise ServerError(f"{self.command[0]} ended with exit code {self._process.returncode}")
        except BaseException as error:
            self.kill()
            if isinstance(error, ServerError):
                raise ServerError(f"{error}\n{self.read_log_tail()}") from None
            raise

    def stop(self, seconds: float = 20.0) -> None:
        """Ask it to end (SIGTERM) and wait; SIGKILL after `seconds`. Nothing when it is not running."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would. Nothing when it is not running."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def read_log_tail(self) -> str:
        """Return the last lines that it printed."""
        if not self.log.exists():
            return "(it printed nothing)"
        with self.log.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")

    def _ready_or_ended(self) -> bool:
        return not self.running or self._ready()


class Server:
    """A server of one program: a context manager that runs it, and may end and start it again meanwhile.

    Subclasses make `process`, and inherit the rest.
    """

    process: ServerProcess

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id. Raises ServerError if it does not run."""
        return self.process.pid

    @property
    def log(self) -> Path:
        """The file with its output."""
        return self.process.log

    @property
    def running(self) -> bool:
        """Return True if it runs."""
        return self.process.running

    def start(self) -> None:
        """Start it and return when it answers. Raises ServerError, with its log, if it does not."""
        self.process.start()

    def stop(self) -> None:
        """End it in order. Does nothing if it does not run."""
        self.process.stop()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
