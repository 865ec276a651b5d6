"""The directory of a process below the run directory, for its sockets, log and state."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["process_directory"]


def process_directory(run: Path) -> Path:
    """Return the directory of this process below the run directory `run`; make it, root-only, if need be.

    It is removed when the process ends; if that died, by `lazylayer status`, once nothing of it is mounted any more.
    """
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = run / "processes" / str(os.getpid())
    directory.parent.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory
