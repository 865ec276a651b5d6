"""Measure the memory of processes: their proportional set size (PSS), from the kernel's `smaps_rollup`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["family", "processes_of", "proportional_set_size", "settled"]

_LOOK_SECONDS = 1.0
_LOOKS = 20
_CHANGE = 0.01


def proportional_set_size(pids: Iterable[int]) -> int:
    """Return the bytes of all these processes, without those that ended or belong to other users."""
    return sum(map(_size, pids))


def _size(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in family(int(child)))]


def processes_of(directory: Path) -> list[int]:
    """Return the other processes with this directory on their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(directory) in words and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def settled(look: Callable[[], int]) -> int:
    """Return the value of `look` once it changes by less than 1 % in a second, after 20 seconds at most."""
    before = look()
    for _ in range(_LOOKS):
        time.sleep(_LOOK_SECONDS)
        now = look()
        if abs(now - before) <= _CHANGE * before:
            return now
        before = now
    return before
