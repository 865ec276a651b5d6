"""Campaigns, and the way their cases run: in processes that may hang or die without hurting the run."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import struct
import sys
import tempfile
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from torture.scratch import ENDING, Scratch

__all__ = ["MIXED", "Campaign", "Failure", "Result", "run_cases"]

DEADLINE = 30.0
"""Seconds that one case may take; a case that takes longer has hung."""
ADDRESS_SPACE = 3 << 30
"""Bytes of address space that a process of a campaign may take."""

MIXED = "mixed"
"""The kind that stands for all of a campaign's kinds, in turn."""

_SEED = struct.Struct("<Q")
_REPORT = "report "
_HANGS = "Timeout ("
"""The beginning of what faulthandler prints about a process that takes too long."""


class Campaign(ABC):
    """A family of cases. An instance belongs to one process; `close` ends what `run` started."""

    name: str
    kinds: Sequence[str]
    unit: str
    """The units that `tried` counts, in the plural: reads, kills, …"""
    counts: int
    """Number of these in a complete run, of each kind."""
    counts_of: Mapping[str, int] = {}
    """Another number, for some kinds."""
    per_case: int = 1
    """Number of these in one case."""
    deadline: float = DEADLINE
    address_space: int = ADDRESS_SPACE
    memory: int = 0
    """Bytes that the process under test may have in memory at its worst; 0 sets no limit."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        """Scratch of this instance alone. The runner empties it, and ends what is left there."""
        self.outcomes: Counter[str] = Counter()
        """Number of times that each outcome was seen."""
        self.tried = 0
        """Number of units that were tried, if that is not `per_case` for each case."""
        self.peak = 0
        """The most memory that a process under test had, in bytes, if that is not this process."""

    @abstractmethod
    def run(self, kind: str, seed: int) -> str:
        """Run one case; return what went wrong, or an empty string.

        The same kind and seed make the same case. An exception is a failure too.
        """

    def close(self) -> None:
        """Stop servers and processes."""

    @classmethod
    def available(cls) -> str:
        """Return why this machine cannot run it, or an empty string."""
        return ""

    @classmethod
    def cases(cls, kind: str, scale: float) -> int:
        """Return how many cases of a kind this share of a complete run has."""
        return max(int(cls.counts_of.get(kind, cls.counts) * scale / cls.per_case), 1)


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

    @property
    def hung(self) -> bool:
        """Return True if the case took longer than it may."""
        return _HANGS in self.problem


class Result(NamedTuple):
    """The outcome of the cases of one kind."""

    campaign: str
    kind: str
    seed: int
    cases: int
    seconds: float
    failures: tuple[Failure, ...]
    tried: int
    peak: int
    outcomes: Counter[str]
    branches: Counter[str]


class _Part(NamedTuple):
    """The outcome of the cases that one child process ran."""

    finished: int
    problem: str
    tried: int
    peak: int
    outcomes: Counter[str]
    branches: Counter[str]


def run_cases(make: type[Campaign], kind: str, seed: int, count: int, *, patience: int = 3) -> Result:
    """Run cases `seed` to `seed + count - 1` of one kind in child processes.

    A child that hangs or dies is a failure of the case that it ran; another one goes on behind that case. More than
    `patience` failures end the run.
    """
    start, done, tried, peak = time.monotonic(), 0, 0, 0
    failures: list[Failure] = []
    outcomes: Counter[str] = Counter()
    branches: Counter[str] = Counter()
    while done < count and len(failures) < patience and not ENDING.is_set():
        part = _run_child(make, kind, seed + done, count - done)
        outcomes += part.outcomes
        branches += part.branches
        tried, peak = tried + part.tried, max(peak, part.peak)
        done += part.finished
        if part.problem:
            failures.append(Failure(make.name, kind, seed + done, part.problem))
            done += 1
    seconds = time.monotonic() - start
    return Result(make.name, kind, seed, done, seconds, tuple(failures), tried, peak, outcomes, branches)


def _run_child(make: type[Campaign], kind: str, seed: int, count: int) -> _Part:
    """Run cases in a child until one fails, and clean up behind it."""
    with Scratch(make.name) as scratch, tempfile.TemporaryFile() as progress, tempfile.TemporaryFile() as said:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            status = 70
            try:
                os.setsid()
                scratch.mark_this_process()
                status = _work(make, scratch.directory, (kind, seed, count), progress, said)
            finally:
                os._exit(status)
        status = scratch.wait_for(child, lambda: os.fstat(progress.fileno()).st_size, make.deadline + DEADLINE)
        progress.seek(0)
        finished = sum(1 for _ in iter(lambda: progress.read(_SEED.size), b""))
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
        branches = scratch.branches()
    reports = [json.loads(line.removeprefix(_REPORT)) for line in lines if line.startswith(_REPORT)]
    report = reports[-1] if reports else {}
    problem = "\n".join(line for line in lines if not line.startswith(_REPORT))
    if status != 0:
        problem = problem or f"the process ended with status {status}"
    elif make.memory and report["peak"] > make.memory:
        problem = f"{report['peak'] >> 20} MiB of memory were used; {make.memory >> 20} are allowed"
        finished -= 1
    tried = report.get("tried", finished * make.per_case)
    return _Part(finished, problem, tried, report.get("peak", 0), Counter(report.get("outcomes", {})), branches)


def _work(
    make: type[Campaign], directory: Path, which: tuple[str, int, int], progress: IO[bytes], said: IO[bytes]
) -> int:
    from loguru import logger

    logger.remove()
    before = _peak()  # of the process that forked this one
    resource.setrlimit(resource.RLIMIT_AS, (make.address_space, make.address_space))
    faulthandler.enable(said)
    kind, seed, count = which
    faulthandler.dump_traceback_later(make.deadline + DEADLINE, exit=True, file=said)
    try:
        campaign = make(directory)
    except Exception as error:
        said.write(f"before the first case: {_describe(error)}".encode(errors="backslashreplace"))
        said.flush()
        return 1
    problem, finished = "", 0
    try:
        for each in range(seed, seed + count):
            faulthandler.dump_traceback_later(make.deadline, exit=True, file=said)
            try:
                problem = campaign.run(_kind_of(campaign, kind, each), each)
            except Exception as error:
                problem = _describe(error)
            if problem:
                break
            finished += 1
            progress.write(_SEED.pack(each))
            progress.flush()
        faulthandler.cancel_dump_traceback_later()
        said.write(_report(campaign, finished, before))
        said.write(problem.encode(errors="backslashreplace"))
        said.flush()
        return int(bool(problem))
    finally:
        faulthandler.dump_traceback_later(make.deadline, exit=True, file=said)
        campaign.close()
        faulthandler.cancel_dump_traceback_later()


def _peak() -> int:
    """Return the most memory that this process had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _report(campaign: Campaign, finished: int, before: int) -> bytes:
    peak = campaign.peak or max(_peak() - before, 0)
    tried = campaign.tried or finished * campaign.per_case
    report = {"tried": tried, "peak": peak, "outcomes": campaign.outcomes}
    return f"{_REPORT}{json.dumps(report)}\n".encode()


def _kind_of(campaign: Campaign, kind: str, seed: int) -> str:
    return campaign.kinds[seed % len(campaign.kinds)] if kind == MIXED else kind


def _describe(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    notes = "\n".join(getattr(error, "__notes__", ()))
    return f"{type(error).__name__}: {str(error)[:300]} ({where})\n{notes[:4000]}".rstrip()
