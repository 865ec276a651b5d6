"""Run one command in a confined container whose root is a read-only directory, with runc.

What the command writes goes to an overlay in memory and is lost. Needs root and the program `runc`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from loguru import logger

from lazylayer.api.text import one_line
from lazylayer.errors import BuildError
from lazylayer_tool_images.confinement import Confinement, specification

__all__ = ["filters_system_calls", "run_container", "workload_of"]

_TAIL = 4096
"""Bytes of what the command says last on standard error."""


def workload_of(command: str, config: Mapping[str, Any]) -> list[str]:
    """Return the words of `command`, or of what the image's `config` runs. Raises BuildError if neither has any."""
    words = shlex.split(command) or [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    if not words:
        raise BuildError("the image does not say what it runs; name a command, as in --record 'python3 -c pass'")
    return words


def filters_system_calls() -> bool:
    """Return True if runc can filter system calls. Raises BuildError if there is no runc."""
    if shutil.which("runc") is None:
        raise BuildError("a workload is recorded with runc, which is not installed; as root: apt install runc")
    done = subprocess.run(["runc", "--version"], capture_output=True, check=False, timeout=30)
    return b"libseccomp" in done.stdout


def run_container(
    scratch: Path,
    lower: Path,
    config: dict[str, Any],
    words: list[str],
    user: tuple[int, int],
    confinement: Confinement,
    seconds: float,
) -> None:
    """Run `words` as `user`, confined, on top of `lower`, for at most `seconds`.

    Files for it are made in `scratch`. Raises BuildError if the container cannot be started or the command
    fails; being ended when the time is over is no failure.
    """
    with _root(scratch, lower, confinement) as root:
        bundle = scratch / "bundle"
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(specification(str(root), confinement, words, user, config)))
        base, name = ["runc", "--root", str(scratch / "runc")], scratch.name
        process = subprocess.Popen(
            [*base, "run", "--bundle", str(bundle), name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        said = _Tail(process.stderr)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            logger.info("the workload is ended after {seconds:g} s", seconds=seconds)
            return
        finally:
            subprocess.run([*base, "delete", "--force", name], capture_output=True, check=False)
            process.wait()
            said.join()
        if process.returncode:
            raise BuildError(f"the workload {words} ended with {process.returncode}: {said.last_line()}")


class _Tail:
    """The last bytes of a stream, read in a thread of its own: a workload may say much."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._kept = b""
        self._thread = threading.Thread(target=self._read, name="lazylayer-stderr", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._stream:
            while piece := os.read(self._stream.fileno(), 65536):
                self._kept = (self._kept + piece)[-_TAIL:]

    def join(self) -> None:
        """Wait for the end of the stream, but not forever: a process that was left may hold it open."""
        self._thread.join(10)

    def last_line(self) -> str:
        """Return the last line that is not empty, safe to print."""
        return one_line(self._kept.decode(errors="replace").strip().rpartition("\n")[2][-500:])


@contextmanager
def _root(scratch: Path, lower: Path, confinement: Confinement) -> Iterator[Path]:
    """Make a writable root on top of `lower`, its upper directory in memory."""
    upper, root = scratch / "upper", scratch / "rootfs"
    upper.mkdir()
    root.mkdir()
    # In a user namespace the workload's root has no rights of ours, and must reach its files.
    scratch.chmod(0o711)
    _mount("-t", "tmpfs", "-o", "mode=711,nosuid,nodev", "tmpfs", str(upper))
    try:
        owner = confinement.first_id or 0
        for name in ("files", "work"):
            (upper / name).mkdir(mode=0o755)
            os.chown(upper / name, owner, owner)
        options = f"lowerdir={lower},upperdir={upper}/files,workdir={upper}/work"
        _mount("-t", "overlay", "-o", f"nodev,{options}", "overlay", str(root))
        try:
            yield root
        finally:
            subprocess.run(["umount", "--lazy", str(root)], capture_output=True, check=False)
    finally:
        subprocess.run(["umount", "--lazy", str(upper)], capture_output=True, check=False)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    if done.returncode:
        raise BuildError(f"recording a workload needs root: {done.stderr.decode(errors='replace').strip()}")
