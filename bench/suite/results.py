"""The results as structs, written as JSON and shown as tables and plots."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator

import msgspec

__all__ = ["UNITS", "Machine", "Report", "Result", "Skipped", "ratio"]

UNITS = ("s", "bytes", "count")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """All values of one quantity of one subject. Less is better in every unit.

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
    """Something that could not be measured, and why. `failed` means that it should have worked."""

    what: str
    why: str
    failed: bool = False


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine measured on. `memory` is in bytes; `file_system` is that of the trees and caches."""

    architecture: str
    processors: int
    memory: int
    kernel: str
    system: str
    file_system: str
    python: str
    lazylayer: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the suite. `references` are the subjects to compare with, by workload."""

    machine: Machine
    started: str
    runs: int
    quick: bool
    references: dict[str, list[str]]
    results: list[Result]
    skipped: list[Skipped]

    def tables(self) -> Iterator[tuple[str, list[Result]]]:
        """Yield each workload with its results."""
        for workload in dict.fromkeys(result.workload for result in self.results):
            yield workload, [result for result in self.results if result.workload == workload]

    def ratios(self, result: Result) -> dict[str, float]:
        """Return the median divided by that of each reference."""
        found = {}
        for reference in self.references[result.workload]:
            value = ratio(result, reference, self.results)
            if reference != result.subject and value is not None:
                found[reference] = value
        return found

    def to_json(self) -> bytes:
        """Encode the report as JSON, with the median and the ratios of each result."""
        found = msgspec.to_builtins(self)
        for result, described in zip(self.results, found["results"], strict=True):
            described |= {"median": result.median, "ratios": self.ratios(result)}
        return msgspec.json.format(msgspec.json.encode(found))


def ratio(result: Result, reference: str, results: Iterable[Result]) -> float | None:
    """Return the median divided by that of `reference` in the same case; None if it is missing or 0."""
    for other in results:
        if other.subject == reference and _case(other) == _case(result) and other.median:
            return result.median / other.median
    return None


def _case(result: Result) -> tuple[object, ...]:
    return (result.workload, result.case, result.unit, result.at)
