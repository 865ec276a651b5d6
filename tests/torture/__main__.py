"""Run campaigns: `PYTHONPATH=tests python -m torture [--only NAME] [--kind KIND] [--seed N] [--count N] [--scale F]`.

Prints a Markdown table of what was tried, how often, from which seed on, and what was found; each failure with the
command that repeats it. Exits with 1 if anything was found.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from torture.branches import BRANCHES, is_counting
from torture.campaign import MIXED, Campaign, Result, run_cases
from torture.faults import Faults
from torture.fuzz import Fuzz
from torture.kills import Kills
from torture.posix import Posix
from torture.scratch import ENDING
from torture.stalls import Stalls
from torture.stateful import Stateful
from torture.syscalls import Crashes, Syscalls

CAMPAIGNS: Sequence[type[Campaign]] = (Fuzz, Faults, Kills, Syscalls, Crashes, Stateful, Stalls, Posix)


def main() -> int:
    """Run what the command line asks for."""
    options = _parse()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ENDING.set())
    chosen = [each for each in CAMPAIGNS if options.only in ("", each.name)]
    work = [
        (each, kind)
        for each in chosen
        for kind in (*each.kinds, MIXED)
        if options.kind in (kind, "" if kind != MIXED else kind)
    ]
    if not work:
        print(f"no campaign {options.only!r} with a kind {options.kind!r}", file=sys.stderr)
        return 2
    for each in chosen:
        each.deadline *= options.patience
    missing = {each: reason for each in chosen if (reason := each.available())}
    for each, reason in missing.items():
        print(f"skipped {each.name}: {reason}", flush=True)
    results = list(_print_rows(_run([item for item in work if item[0] not in missing], options)))
    failures = [failure for each in results for failure in each.failures]
    for failure in failures:
        print(f"\nFAILED {failure.campaign} {failure.kind} {failure.seed}\n  {failure.command}")
        print(f"  {failure.problem[:6000]}")
    _print_outcomes(results)
    complete = not (options.kind or options.count or options.scale < 1 or ENDING.is_set())
    never = _print_branches(results, {each.name for each in chosen if each not in missing}) if is_counting() else []
    return int(bool(failures or (complete and never)))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="torture", description="Many bad inputs, faults and kills.")
    parser.add_argument("--only", default="", help="one campaign: " + ", ".join(each.name for each in CAMPAIGNS))
    parser.add_argument("--kind", default="", help="one kind of it")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=0, help="cases of each kind; by default those of a complete run")
    parser.add_argument("--scale", type=float, default=1.0, help="this share of a complete run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="kinds at the same time")
    parser.add_argument(
        "--patience", type=float, default=1.0, help="times as long until a case hangs: on a busy machine"
    )
    return parser.parse_args()


def _run(work: list[tuple[type[Campaign], str]], options: argparse.Namespace) -> Iterator[Result]:
    def one(item: tuple[type[Campaign], str]) -> Result:
        campaign, kind = item
        return run_cases(campaign, kind, options.seed, options.count or campaign.cases(kind, options.scale))

    with ThreadPoolExecutor(options.jobs) as pool:
        yield from pool.map(one, work)


def _print_rows(results: Iterator[Result]) -> Iterator[Result]:
    """Print a line of the table for each result, as soon as it is there."""
    print("| campaign | kind | seeds | tried | seconds | peak MiB | failed | hung |", flush=True)
    print("|---|---|---|---|---|---|---|---|", flush=True)
    units = {each.name: each.unit for each in CAMPAIGNS}
    for result in results:
        row = (
            result.campaign,
            result.kind,
            f"{result.seed}-{result.seed + result.cases - 1}",
            f"{result.tried:,} {units[result.campaign]}",
            f"{result.seconds:.0f}",
            result.peak >> 20,
            len(result.failures),
            sum(failure.hung for failure in result.failures),
        )
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
        yield result


def _print_outcomes(results: list[Result]) -> None:
    outcomes: Counter[str] = sum((each.outcomes for each in results), Counter())
    seconds = sum(each.seconds for each in results)
    print(f"\n{sum(each.cases for each in results)} cases in {seconds:.0f} s. Outcomes, and how often each was seen:")
    for name, count in sorted(outcomes.items()):
        print(f"  {count:9,}  {name}")


def _print_branches(results: list[Result], campaigns: set[str]) -> list[str]:
    """Print how often rare branches ran, and return those that these campaigns never came to."""
    ran: Counter[str] = sum((each.branches for each in results), Counter())
    print("Rare branches, and how often each ran:")
    expected = [branch.name for branch in BRANCHES if branch.campaign in campaigns]
    for name in expected:
        print(f"  {ran[name]:9,}  {name}")
    return [name for name in expected if not ran[name]]


if __name__ == "__main__":
    sys.exit(main())
