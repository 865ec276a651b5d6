#!/usr/bin/env python3
"""Compare lazylayer with an extracted tree, full pulls, other snapshotters and other libraries.

    python bench/run.py [--runs N] [--only WORKLOAD,…] [--peer 'NAME=CMD {sock} {root}']… [--output DIR]

Subjects alternate within one run. Prints medians and ratios as tables, and writes `results.json`,
`table.txt` and plots for each workload to the output directory. Workloads that this machine cannot run are
listed with the reason. The exit code is 1 if something failed that should have worked.
"""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from suite.bench import Bench, Options, Peer, Workload
from suite.machine import MissingError, describe_machine, why_not
from suite.nodes import DEFAULT_PULL
from suite.plots import draw
from suite.results import Report
from suite.table import render
from workloads import WORKLOADS

_ROOT = Path(__file__).resolve().parent.parent
_OUTPUT = _ROOT / "build" / "bench"


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    names = "\n".join(f"  {each.name:14} {each.summary}" for each in WORKLOADS)
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nWorkloads:\n{names}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, help="runs of each case; default 5, with --quick 1")
    parser.add_argument("--only", default="", metavar="WORKLOAD,…", help="only these workloads")
    parser.add_argument("--quick", action="store_true", help="small sizes and one run, to check that the suite works")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=CMD", help="see docs/benchmarks.md")
    parser.add_argument("--peer-pull", default=DEFAULT_PULL, metavar="CMD", help="how peers pull; default: %(default)s")
    parser.add_argument("--tree", type=Path, metavar="DIR", help="tree for `tree` and `kill`, instead of a Debian")
    parser.add_argument("--kill-rounds", type=int, default=20, metavar="N", help="rounds of the workload `kill`")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/lazylayer-bench"), help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=_OUTPUT, help="default: build/bench")
    parser.add_argument("--list", action="store_true", help="list the workloads and exit")
    return parser


def _options(arguments: argparse.Namespace) -> Options:
    peers = []
    for text in arguments.peer:
        name, separator, command = text.partition("=")
        if not separator or "{sock}" not in command:
            sys.exit(f"run.py: --peer {text!r}: expected NAME=CMD, with {{sock}} and {{root}} in the command")
        peers.append(Peer(name, command, arguments.peer_pull))
    return Options(
        runs=arguments.runs or (1 if arguments.quick else 5),
        quick=arguments.quick,
        work=arguments.work.resolve(),
        peers=tuple(peers),
        tree=arguments.tree and arguments.tree.resolve(),
        rounds=3 if arguments.quick else arguments.kill_rounds,
    )


def _chosen(only: str) -> Sequence[Workload]:
    if not only:
        return WORKLOADS
    by_name = {workload.name: workload for workload in WORKLOADS}
    if unknown := [name for name in only.split(",") if name not in by_name]:
        sys.exit(f"run.py: unknown workload: {', '.join(unknown)}; expected one of {', '.join(by_name)}")
    return [by_name[name] for name in only.split(",")]


def _compile(directory: str) -> None:
    """Compile the modules first, as an installation does."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = directory
    subprocess.run([sys.executable, "-m", "compileall", "-q", _ROOT / "core", _ROOT / "plugins"], check=False)
    subprocess.run([sys.executable, "-m", "lazylayer", "plugins", "list"], stdout=subprocess.DEVNULL, check=False)


def _measure(bench: Bench, workloads: Sequence[Workload]) -> None:
    for workload in workloads:
        bench.workload = workload.name
        bench.say(f"{workload.name}: {workload.summary}")
        if why := why_not(workload.needs):
            bench.skip("", why)
            continue
        try:
            workload.measure(bench)
        except MissingError as error:
            bench.skip("", str(error))
        except Exception as error:  # noqa: BLE001 - the other workloads go on, and the failure is shown
            bench.skip("", f"{type(error).__name__}: {error}", failed=True)


def _report(bench: Bench, workloads: Sequence[Workload], started: str) -> Report:
    peers = [peer.name for peer in bench.options.peers]
    return Report(
        machine=describe_machine(bench.options.work),
        started=started,
        runs=bench.options.runs,
        quick=bench.options.quick,
        references={workload.name: [*workload.references, *peers] for workload in workloads},
        results=bench.results,
        skipped=bench.skipped,
    )


def _write(report: Report, directory: Path) -> None:
    table = "".join(f"{line}\n" for line in render(report))
    (directory / "results.json").write_bytes(report.to_json())
    (directory / "table.txt").write_text(table)
    print(table, end="")
    try:
        draw(report, directory)
    except ImportError as error:
        print(f"no plots: {error}; install the packages of the extra `bench`", file=sys.stderr)
    print(f"\nwritten to {directory}")


def main() -> int:
    """Run the suite; return the exit code."""
    arguments = _parser().parse_args()
    if arguments.list:
        print("\n".join(workload.name for workload in WORKLOADS))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    workloads = _chosen(arguments.only)
    options = _options(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    try:
        with tempfile.TemporaryDirectory(prefix="bytecode-", dir=options.work) as bytecode:
            _compile(bytecode)
            _measure(bench, workloads)
    finally:
        report = _report(bench, workloads, started)
        _write(report, arguments.output.resolve())
    return int(any(each.failed for each in report.skipped))


if __name__ == "__main__":
    sys.exit(main())
