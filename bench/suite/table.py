"""Render results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from suite.results import Report, Result, Skipped

__all__ = ["format_value", "render"]

_SECONDS = ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (0.0, 1e6, "µs"))
_BYTES = ((1e6, 1e-6, "MB"), (1e3, 1e-3, "kB"), (0.0, 1.0, "B"))


def render(report: Report) -> Iterator[str]:
    """Return the lines: the machine, a table for each workload, and what was skipped."""
    machine = report.machine
    yield (
        f"{machine.architecture}, {machine.processors} processors, {machine.memory / 2**30:.0f} GiB, "
        f"Linux {machine.kernel}, {machine.file_system}, {machine.system}, Python {machine.python}; "
        f"medians of {report.runs}{', small sizes' if report.quick else ''}"
    )
    for workload, results in report.tables():
        yield ""
        yield from _render_workload(report, workload, results)
    yield from _render_skipped(report.skipped)


def format_value(value: float, unit: str) -> str:
    """Format a value to three digits, with its unit."""
    if unit == "count":
        return f"{value:.0f}"
    for least, factor, name in _SECONDS if unit == "s" else _BYTES:
        if value >= least:
            return f"{_three_digits(value * factor)} {name}"
    return f"{value:g} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 1 else f"{value:.2f}"


def _render_workload(report: Report, workload: str, results: Sequence[Result]) -> Iterator[str]:
    present = {result.subject for result in results}
    references = [each for each in report.references[workload] if each in present and len(present) > 1]
    rows = [["case", "subject", "median", "least", "most", *(f"÷ {each}" for each in references)]]
    case = None
    for result in _by_case(results):
        name = result.case if result.at is None else f"{result.case}, {result.at:,} {result.at_unit}"
        ratios = report.ratios(result)
        values = (result.median, min(result.values), max(result.values))
        rows.append(
            [
                *("" if name == case else name, result.subject),
                *(format_value(value, result.unit) for value in values),
                *(f"{ratios[each]:.2f}" if each in ratios else "" for each in references),
            ]
        )
        case = name
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield f"== {workload} =="
    for row in rows:
        cells = [
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _by_case(results: Sequence[Result]) -> Iterator[Result]:
    """Sort by case and subject in the order of their first measurement, and by size."""
    cases = {(each.case, each.at): None for each in results}
    names = list(dict.fromkeys(case for case, _ in cases))
    for case, at in sorted(cases, key=lambda each: (names.index(each[0]), each[1] or 0)):
        yield from (each for each in results if (each.case, each.at) == (case, at))


def _render_skipped(skipped: Sequence[Skipped]) -> Iterator[str]:
    if skipped:
        yield ""
        yield "== not measured =="
    for each in skipped:
        # What a program said last tells most; `results.json` has all of it.
        why = each.why.strip().rpartition("\n")[2]
        yield f"{each.what}: {'FAILED: ' if each.failed else ''}{why}"
