"""One run of the suite: its options, its results, and the order of subjects."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from suite.results import UNITS, Result, Skipped

__all__ = ["EROFS", "EXTRACTED", "FUSE", "Bench", "Options", "Peer", "Workload", "subject_name"]

EXTRACTED = "extracted tree"
EROFS = "lazylayer, EROFS"
FUSE = "lazylayer, FUSE"
_NAMES = {"frontend_erofs": EROFS, "frontend_fuse": FUSE}

_T = TypeVar("_T")


def subject_name(frontend: str) -> str:
    """Return the name of lazylayer with this frontend in results."""
    return _NAMES.get(frontend, f"lazylayer, {frontend}")


class Peer(msgspec.Struct, frozen=True):
    """Another snapshotter: its name, its command (`{sock}`, `{root}`, `{host}`), and the command that pulls with it."""

    name: str
    command: str
    pull: str


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command line. `work` keeps trees and images between runs; `tree` replaces the built one."""

    runs: int
    quick: bool
    work: Path
    peers: tuple[Peer, ...] = ()
    tree: Path | None = None
    rounds: int = 20


class Bench:
    """The interface of workloads to the suite. Not thread-safe: workloads record from one thread."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.results: list[Result] = []
        self.skipped: list[Skipped] = []
        self.workload = ""

    def record(
        self, case: str, subject: str, value: float, unit: str, *, at: int | None = None, at_unit: str = ""
    ) -> None:
        """Add one value to the results of a subject's case."""
        assert unit in UNITS, unit
        for result in self.results:
            if (result.workload, result.case, result.subject, result.unit, result.at) == (
                *(self.workload, case, subject, unit, at),
            ):
                result.values.append(value)
                return
        self.results.append(
            Result(
                workload=self.workload, case=case, subject=subject, unit=unit, values=[value], at=at, at_unit=at_unit
            )
        )

    def skip(self, what: str, why: str, *, failed: bool = False) -> None:
        """Record, once, that `what` in this workload cannot be measured, and why."""
        skipped = Skipped(f"{self.workload}: {what}" if what else self.workload, why, failed)
        if skipped not in self.skipped:
            self.skipped.append(skipped)
            self.say(f"  {'failed' if failed else 'skipped'}: {skipped.what}: {why}")

    def alternate(self, subjects: Sequence[_T], number: int) -> list[_T]:
        """Return the subjects in the order of run `number`, so that each comes first equally often."""
        start = number % len(subjects) if subjects else 0
        return [*subjects[start:], *subjects[:start]]

    def runs(self) -> Iterator[int]:
        """Yield the number of each run, and print it."""
        for number in range(self.options.runs):
            self.say(f"  run {number + 1} of {self.options.runs}")
            yield number

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a temporary directory in the work directory, with a path short enough for sockets."""
        self.options.work.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix="s", dir=self.options.work))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @staticmethod
    def say(line: str) -> None:
        """Print a line of progress."""
        print(line, file=sys.stderr, flush=True)


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A workload: its name on the command line, its summary, and its function.

    `needs` lists requirements (`suite.machine`). `references` are the subjects to compare with; peers are
    always among them.
    """

    name: str
    summary: str
    measure: Callable[[Bench], None]
    needs: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
