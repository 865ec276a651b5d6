"""What a campaign is, and how its cases are run: in processes that may hang or die without hurting the run."""

from __future__ import annotations

import faulthandler
import os
import resource
import struct
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

__all__ = ["MIXED", "Campaign", "Failure", "Result", "run_cases"]

DEADLINE = 30.0
"""Seconds that one case may take; a case that takes longer has hung."""
MEMORY = 3 << 30
"""Bytes of address space that a process of a campaign may take."""

MIXED = "mixed"
"""The kind that stands for all of a campaign's kinds, in turn."""

_SEED = struct.Struct("<Q")


class Campaign(ABC):
    """A family of cases. An instance belongs to one process; `close` ends what `run` started."""

    name: str
    kinds: Sequence[str]
    counts: int
    """How many cases of each kind a complete run has."""
    deadline: float = DEADLINE
    memory: int = MEMORY

    def __init__(self) -> None:
        self.rare: Counter[str] = Counter()
        """How often each rare branch ran: an outcome that a run must see at least once."""

    @abstractmethod
    def run(self, kind: str, seed: int) -> str:
        """Run one case; return what went wrong, or an empty string.

        The same kind and seed make the same case. An exception is a failure too.
        """

    def close(self) -> None:
        """Stop servers and processes."""


class Failure(NamedTuple):
    """A case that failed, and how."""

    campaign: str
    kind: str
    seed: int
    problem: str

    @property
    def command(self) -> str:
        """The command that repeats it."""
        return f"make torture TORTURE='--only {self.campaign} --kind {self.kind} --seed {self.seed} --count 1'"


class Result(NamedTuple):
    """The outcome of the cases of one kind."""

    campaign: str
    kind: str
    seed: int
    cases: int
    seconds: float
    failures: tuple[Failure, ...]
    rare: Counter[str]


def run_cases(make: type[Campaign], kind: str, seed: int, count: int, *, patience: int = 3) -> Result:
    """Run cases `seed` to `seed + count - 1` of one kind in child processes.

    A child that hangs or dies is a failure of the case that it ran; another one goes on behind that case. More than
    `patience` failures end the run.
    """
    start, done = time.monotonic(), 0
    failures: list[Failure] = []
    rare: Counter[str] = Counter()
    while done < count and len(failures) < patience:
        finished, found, seen = _run_child(make, kind, seed + done, count - done)
        rare += seen
        done += finished
        if found is not None:
            failures.append(Failure(make.name, kind, seed + done, found))
            done += 1
    return Result(make.name, kind, seed, done, time.monotonic() - start, tuple(failures), rare)


def _run_child(make: type[Campaign], kind: str, seed: int, count: int) -> tuple[int, str | None, Counter[str]]:
    """Run cases until one fails; return how many went well, what was wrong with the next, and the rare branches."""
    with tempfile.TemporaryFile() as progress, tempfile.TemporaryFile() as said:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            status = 70
            try:
                status = _work(make, kind, seed, count, progress, said)
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        progress.seek(0)
        finished = sum(1 for _ in iter(lambda: progress.read(_SEED.size), b""))
        said.seek(0)
        text = said.read().decode(errors="replace").strip()
    rare = Counter({line[5:]: 1 for line in text.splitlines() if line.startswith("rare ")})
    problem = "\n".join(line for line in text.splitlines() if not line.startswith("rare "))
    if status == 0:
        return finished, None, rare
    return finished, problem or f"the process ended with status {status}", rare


def _work(make: type[Campaign], kind: str, seed: int, count: int, progress: IO[bytes], said: IO[bytes]) -> int:
    from loguru import logger

    logger.remove()
    resource.setrlimit(resource.RLIMIT_AS, (make.memory, make.memory))
    faulthandler.enable(said)
    campaign = make()
    try:
        for each in range(seed, seed + count):
            faulthandler.dump_traceback_later(make.deadline, exit=True, file=said)
            try:
                problem = campaign.run(_kind_of(campaign, kind, each), each)
            except Exception as error:
                problem = _describe(error)
            faulthandler.cancel_dump_traceback_later()
            if problem:
                said.write(problem.encode(errors="backslashreplace"))
                said.flush()
                return 1
            progress.write(_SEED.pack(each))
            progress.flush()
        for name in campaign.rare:
            said.write(f"rare {name}\n".encode())
        said.flush()
        return 0
    finally:
        campaign.close()


def _kind_of(campaign: Campaign, kind: str, seed: int) -> str:
    return campaign.kinds[seed % len(campaign.kinds)] if kind == MIXED else kind


def _describe(error: Exception) -> str:
    import traceback

    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__}: {str(error)[:300]} ({where})"
