"""Draw results: bars for each case, lines for cases measured at several sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from suite.results import Report, Result

__all__ = ["draw"]

_COLUMNS = 3
_MANY = 10
_AXES = {"s": ("seconds", 1.0), "bytes": ("MB", 1e-6), "count": ("count", 1.0)}


def draw(report: Report, directory: Path) -> list[Path]:
    """Write PNG files, at most two for each workload. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("agg")
    drawn = []
    for workload, results in report.tables():
        for suffix, chosen, plot in (
            ("", [each for each in results if each.at is None], _draw_bars),
            ("-by-size", [each for each in results if each.at is not None], _draw_lines),
        ):
            if chosen:
                path = directory / f"{workload}{suffix}.png"
                _draw_figure(f"{workload}: medians", chosen, plot, path)
                drawn.append(path)
    return drawn


def _draw_figure(title: str, results: Sequence[Result], plot: Any, path: Path) -> None:
    from matplotlib.figure import Figure

    cases = dict.fromkeys((result.case, result.unit) for result in results)
    colours = {subject: f"C{number}" for number, subject in enumerate(dict.fromkeys(each.subject for each in results))}
    columns = min(_COLUMNS, len(cases))
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(max(6.0, 4.5 * columns), 1.2 + 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for (case, unit), axis in zip(cases, axes, strict=False):
        axis.set_title(case, fontsize=10)
        axis.grid(visible=True, alpha=0.3)
        plot(axis, [each for each in results if (each.case, each.unit) == (case, unit)], colours)
    for axis in axes:
        axis.set_visible(False)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _draw_bars(axis: Any, results: Sequence[Result], colours: dict[str, str]) -> None:
    """Draw the medians as bars, and every value as a dot."""
    label, scale = _AXES[results[0].unit]
    if len(results) == 1 and len(results[0].values) >= _MANY:
        _draw_rounds(axis, results[0])
        return
    for number, result in enumerate(results):
        axis.barh(number, result.median * scale, color=colours[result.subject], alpha=0.7)
        axis.plot(
            [value * scale for value in result.values],
            [number] * len(result.values),
            "o",
            color="black",
            markersize=2.5,
        )
    axis.set_yticks(range(len(results)), [result.subject for result in results], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(left=0)
    axis.set_xlabel(label, fontsize=8)


def _draw_rounds(axis: Any, result: Result) -> None:
    """Draw the values of the only subject in order."""
    label, scale = _AXES[result.unit]
    axis.bar(range(1, len(result.values) + 1), [value * scale for value in result.values])
    axis.axhline(result.median * scale, color="black", linewidth=0.8)
    axis.set_xlabel("round", fontsize=8)
    axis.set_ylabel(label, fontsize=8)


def _draw_lines(axis: Any, results: Sequence[Result], colours: dict[str, str]) -> None:
    label, scale = _AXES[results[0].unit]
    for subject, points in _by_subject(results):
        sizes = [point.at for point in points]
        axis.plot(sizes, [point.median * scale for point in points], "o-", color=colours[subject], label=subject)
    all_sizes = [result.at or 0 for result in results]
    if min(all_sizes) > 0 and max(all_sizes) >= 100 * min(all_sizes):
        axis.set_xscale("log")
        axis.set_yscale("log", nonpositive="mask")
    else:
        axis.locator_params(axis="x", nbins=5)
        axis.set_ylim(bottom=0)
    axis.set_xlabel(results[0].at_unit, fontsize=8)
    axis.set_ylabel(label, fontsize=8)
    axis.legend(fontsize=8)


def _by_subject(results: Sequence[Result]) -> Iterator[tuple[str, list[Result]]]:
    for subject in dict.fromkeys(result.subject for result in results):
        yield subject, sorted((each for each in results if each.subject == subject), key=lambda each: each.at or 0)
