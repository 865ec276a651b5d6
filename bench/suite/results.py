"""What was measured, as structs that are written as JSON and shown as tables and plots."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator

import msgspec

__all__ = ["UNITS", "Machine", "Report", "Result", "Skipped", "ratio"]

UNITS = ("s", "bytes", "count")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Every value of one quantity of one subject. Less is better, whatever the unit.

    `at` is the size that it was measured at, for those cases that are measured at several: entries, mostly.
    """

    workload: str
    case: str
    subject: str
    unit: str
    values: list[float]
    at: int | None = None
    at_unit: str = ""

    @property
    def median(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)


class Skipped(msgspec.Struct, frozen=True):
    """What could not be measured, and why. `failed` is for what should have been possible."""

    what: str
    why: str
    failed: bool = False


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on. `memory` is in bytes; `file_system` is that of the trees and caches."""

    architecture: str
    processors: int
    memory: int
    kernel: str
    system: str
    file_system: str
    python: str
    lazylayer: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the suite. `references` has, by workload, the subjects that the others are compared with."""

    machine: Machine
    started: str
    runs: int
    quick: bool
    references: dict[str, list[str]]
    results: list[Result]
    skipped: list[Skipped]

    def tables(self) -> Iterator[tuple[str, list[Result]]]:
        """The results of each workload."""
        for workload in dict.fromkeys(result.workload for result in self.results):
            yield workload, [result for result in self.results if result.workload == workload]

    def ratios(self, result: Result) -> dict[str, float]:
        """How many times the value of each reference a result is, at the medians."""
        found = {}
        for reference in self.references[result.workload]:
            value = ratio(result, reference, self.results)
            if reference != result.subject and value is not None:
                found[reference] = value
        return found

    def to_json(self) -> bytes:
        """All of it, with the median and the ratios of each result, for programs and people."""
        found = msgspec.to_builtins(self)
        for result, described in zip(self.results, found["results"], strict=True):
            described |= {"median": result.median, "ratios": self.ratios(result)}
        return msgspec.json.format(msgspec.json.encode(found))


def ratio(result: Result, reference: str, results: Iterable[Result]) -> float | None:
    """The median divided by that of the same case of the subject `reference`; None if there is none, or it is 0."""
    for other in results:
        if other.subject == reference and _case(other) == _case(result) and other.median:
            return result.median / other.median
    return None


def _case(result: Result) -> tuple[object, ...]:
    return (result.workload, result.case, result.unit, result.at)
