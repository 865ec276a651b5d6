"""`lazylayer serve` and `lazylayer pull`, private to one directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from lazylayer_testing.servers.process import ServerError, ServerProcess, run, wait_until


class LazylayerDaemon:
    """A snapshotter with its own root, run directory and socket below `directory`, a short path.

    :param plain_http: registry hosts that are spoken to without TLS.
    :param settings: further settings, by dotted key, as TOML.

    A context manager: it runs inside the `with` block. It can be ended by any signal and started
    again.
    """

    def __init__(
        self, directory: Path, *, plain_http: Sequence[str] = (), settings: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.address = directory / "snapshotter.sock"
        self.run_directory = directory / "run"
        self.snapshots = directory / "root/snapshotter/snapshots"
        values = {
            "root": json.dumps(str(directory / "root")),
            "run": json.dumps(str(self.run_directory)),
            "resolve.plain_http": json.dumps(list(plain_http)),
            "log.format": '"json"',
            "log.level": '"DEBUG"',
            **(settings or {}),
        }
        options = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
        self._command: list[str | Path] = [sys.executable, "-m", "lazylayer", *options]
        self._client: list[str | Path] = [sys.executable, "-m", "lazylayer", "--set", f"run={self.run_directory}"]
        self._process = ServerProcess(
            [*self._command, "serve", "--address", self.address],
            log=directory / "lazylayer.log",
            ready=self._answers,
            environment={**os.environ, "PYTHONFAULTHANDLER": "1"},
            start_seconds=60,
        )
        directory.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> LazylayerDaemon:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.running:
            self.start()
        self.end(signal.SIGINT)
        for mountpoint in reversed(self.mounts()):
            subprocess.run(["umount", "--lazy", mountpoint], check=True)

    @property
    def running(self) -> bool:
        """Return True if it is up."""
        return self._process.running

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def start(self) -> None:
        """Start it and return when it answers."""
        self._started_at = self._process.log.stat().st_size if self._process.log.exists() else 0
        self._process.start()

    def end(self, number: signal.Signals) -> None:
        """Send it a signal and wait until it is gone; ServerError, with what its threads do, when it stays."""
        os.kill(self._process.pid, number)
        try:
            wait_until(lambda: not self._process.running, "lazylayer serve ends", 30)
        except ServerError as error:
            os.kill(self._process.pid, signal.SIGABRT)
            wait_until(lambda: not self._process.running, "lazylayer serve is aborted", 30)
            raise ServerError(f"{error}\n{self._process.read_log_tail()}") from None
        finally:
            self._process.kill()

    def pull(self, containerd: Path, reference: str, *, namespace: str = "default") -> dict[str, Any]:
        """`lazylayer pull --json` of an image into a containerd; what it said."""
        options: list[str | Path] = ["--json", "--containerd", containerd, "--namespace", namespace]
        said: dict[str, Any] = json.loads(run([*self._client, "pull", *options, reference]))
        return said

    def mounts(self) -> list[str]:
        """Return the mounts below its snapshots, the first mounted first."""
        mountpoints = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        return [each for each in mountpoints if each.startswith(f"{self.snapshots}/")]

    def log(self) -> list[dict[str, Any]]:
        """Return its log since it was last started."""
        with self._process.log.open() as log:
            log.seek(self._started_at)
            return [json.loads(line) for line in log if line.startswith("{")]

    def frontend(self) -> str:
        """Return the frontend that it mounts with; empty before its first mount since it was started."""
        words = [str(line["message"]).rpartition(" ")[2] for line in self.log() if "mounting with" in line["message"]]
        return words[-1] if words else ""

    def _answers(self) -> bool:
        return any("serving snapshots on" in str(line["message"]) for line in self.log())
