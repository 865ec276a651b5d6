"""Ask lazylayer processes what they mount: a socket of each in the run directory.

Every process that mounts has a directory `RUN/processes/PID`, root-only like all of `RUN`, with its
socket `control.sock` and, when it runs detached, its `log`. A client writes one JSON object and
reads one: there is nothing to keep open, and nothing to agree on beforehand.

    → {"command": "status"}
    ← {"error": "", "process": {"pid": 1234, "mounts": [...]}}
    → {"command": "unmount", "mountpoint": "/mnt", "force": false}
    ← {"error": "/mnt is in use"}

A daemon may offer more commands; `lazylayer.cli.asking` is their client. The side that answers is in
`lazylayer.cli.controlserver`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from lazylayer.api.decoding import decode_json
from lazylayer.api.events import MountState
from lazylayer.cli.channel import MAX_REPLY, Lines, connect
from lazylayer.errors import FormatError, MountError

__all__ = [
    "MAX_REQUEST",
    "TIMEOUT",
    "ProcessState",
    "Reply",
    "Request",
    "find_mount",
    "left_directories",
    "processes",
    "request_unmount",
]

OnSilent = Callable[[str, Exception], None]
"""Gets the pid and the error."""


MAX_REQUEST = 64 * 1024
TIMEOUT = 10.0
"""Seconds that a peer may be silent while it writes."""
UNMOUNT_TIMEOUT = 60.0
"""Seconds that a client waits for an unmount."""


class ProcessState(msgspec.Struct, frozen=True):
    """One process and its mounts."""

    pid: int
    mounts: tuple[MountState, ...]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request to a process."""

    command: str
    mountpoint: str = ""
    force: bool = False
    arguments: msgspec.Raw = msgspec.Raw(b"null")
    """Those of a command that the daemon offers."""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The reply of a process; `error` is empty if the request succeeded."""

    error: str = ""
    process: ProcessState | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    """That of a command that the daemon offers."""
    invalid: bool = False
    """True if the error is one of the request itself, which the user wrote."""


def processes(run: Path, on_silent: OnSilent | None = None) -> Iterator[ProcessState]:
    """Yield the state of each process that answers below the run directory `run`, by pid.

    :param on_silent: told of each process that is alive and does not answer; by default it is logged.
    """
    for each in _directories(run):
        try:
            reply = _ask(each / "control.sock", Request("status"), TIMEOUT)
        except (ConnectionRefusedError, FileNotFoundError):
            continue
        except (OSError, FormatError) as error:
            (on_silent or _log_silent)(each.name, error)
            continue
        if reply.process is not None:
            yield reply.process


def left_directories(run: Path) -> list[Path]:
    """Return the directories below `run` of processes that are gone and removed nothing, their mounts perhaps."""
    return [each for each in _directories(run) if not _is_alive(_pid(each))]


def _directories(run: Path) -> list[Path]:
    directory = run / "processes"
    return sorted(directory.iterdir(), key=_pid) if directory.is_dir() else []


def _log_silent(pid: str, error: Exception) -> None:
    from lazylayer.logger import logger

    logger.warning("process {pid} does not answer: {error}", pid=pid, error=error)


def find_mount(run: Path, mountpoint: str, on_silent: OnSilent | None = None) -> ProcessState | None:
    """Return the process that serves `mountpoint`, an absolute path, or None; `on_silent` as in `processes`."""
    found = processes(run, on_silent)
    return next((each for each in found if any(mount.mountpoint == mountpoint for mount in each.mounts)), None)


def request_unmount(run: Path, pid: int, mountpoint: str, *, force: bool) -> None:
    """Ask process `pid` to unmount, and wait until it is done. Raises MountError with its answer."""
    path = run / "processes" / str(pid) / "control.sock"
    try:
        reply = _ask(path, Request("unmount", mountpoint, force), UNMOUNT_TIMEOUT)
    except (OSError, FormatError) as error:
        raise MountError(f"{mountpoint}: process {pid} does not answer: {error}") from error
    if reply.error:
        raise MountError(reply.error)


def _ask(path: Path, request: Request, timeout: float) -> Reply:
    with connect(path, timeout) as peer:
        peer.sendall(msgspec.json.encode(request) + b"\n")
        return decode_json(Lines(peer, MAX_REPLY).next(), Reply)


def _pid(directory: Path) -> int:
    return int(directory.name) if directory.name.isdigit() else 0


def _is_alive(pid: int) -> bool:
    """Return True if a process runs under this number; one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1]
    except OSError:
        return False
    return state not in (b"Z", b"X")
