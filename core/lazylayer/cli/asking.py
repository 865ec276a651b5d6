"""Ask a daemon to carry out a command that it offers, and hear how it goes.

Each process lists the commands that it offers in `RUN/processes/PID/offers`, one name a line. The client writes
one request to the socket beside it, and reads lines until one has no `progress`:

    → {"command": "pull", "arguments": {...}}
    ← {"progress": "sha256:8b1047311559  manifest of registry.example.com/app:1"}
    ← {"result": {...}}  or  {"error": "...", "invalid": true}

A client that goes away cancels the command. Only the standard library is imported here: a command that asks
a daemon starts as fast as Python does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lazylayer.cli.channel import MAX_REPLY, Lines, connect
from lazylayer.errors import LazylayerError

__all__ = ["OFFERS", "InvalidRequestError", "NoDaemonError", "ask_daemon"]

OFFERS = "offers"
"""The name of the file in a process's directory that lists the commands that it offers."""

_CONNECT_TIMEOUT = 10.0


class NoDaemonError(LazylayerError):
    """No process below the run directory offers the command."""


class InvalidRequestError(LazylayerError):
    """The daemon rejects what the user wrote."""


def ask_daemon(run: Path, command: str, arguments: Any, on_progress: Callable[[str], None]) -> Any:
    """Have a daemon below the run directory `run` carry out a command, and return its result.

    :param on_progress: gets each line of progress.

    Raises NoDaemonError; InvalidRequestError; LazylayerError with the daemon's own error.
    """
    request = json.dumps({"command": command, "arguments": arguments}).encode() + b"\n"
    for directory in _directories(run, command):
        try:
            peer = connect(directory / "control.sock", _CONNECT_TIMEOUT)
        except (ConnectionRefusedError, FileNotFoundError):
            continue  # it has ended
        with peer:
            peer.sendall(request)
            peer.settimeout(None)
            return _hear(peer, directory.name, on_progress)
    raise NoDaemonError(f"no lazylayer daemon offers {command} below {run}; start `lazylayer serve`")


def _directories(run: Path, command: str) -> list[Path]:
    """Return the directories of the processes that offer the command."""
    offers = sorted((run / "processes").glob(f"*/{OFFERS}"))
    return [each.parent for each in offers if command in each.read_text().split()]


def _hear(peer: Any, pid: str, on_progress: Callable[[str], None]) -> Any:
    lines = Lines(peer, MAX_REPLY)
    while True:
        try:
            said = json.loads(lines.next())
        except (OSError, ValueError) as error:
            raise LazylayerError(f"the daemon (process {pid}) did not finish: {error}; see its log") from error
        if "progress" in said:
            on_progress(said["progress"])
        elif said.get("error"):
            raise (InvalidRequestError if said.get("invalid") else LazylayerError)(said["error"])
        else:
            return said.get("result")
