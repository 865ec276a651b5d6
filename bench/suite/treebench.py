"""Measure commands in the tree of each subject: warm, and with the kernel's caches dropped."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import msgspec

from lazylayer_testing.servers.process import ServerError
from suite.bench import Bench
from suite.images import served_image
from suite.machine import why_not
from suite.subjects import Extracted, Subject, open_subjects

__all__ = ["Case", "measure_tree", "shell"]

_FACTS = r"""export LC_ALL=C
find . -mindepth 1 \( -type f -printf '%m %U %G %s %n %p\n' -o -printf '%y %m %U %G %l %p\n' \) | sort
find . -type f -print0 | sort -z | xargs -0 cat"""
_DROPPED = {"entries dropped": "2\n", "all dropped": "3\n", "mounted afresh": "3\n"}


_FAILURES = (ServerError, OSError, subprocess.CalledProcessError)
"""Failures of one subject, after which the others continue."""


class Case(msgspec.Struct, frozen=True):
    """A command that is run in the tree, and what goes before it.

    `warm`: the same command, unmeasured. `entries dropped`: the kernel has forgotten directory entries and
    inodes; `all dropped`: and the contents of files, on disk and in mounts alike. `mounted afresh`: all
    dropped, and the tree is mounted anew, its data still in the subject's cache on disk.

    The command prints its own seconds when `own_clock`; otherwise all of it is timed.
    """

    name: str
    command: tuple[str, ...]
    before: Literal["warm", "entries dropped", "all dropped", "mounted afresh"] = "warm"
    own_clock: bool = False


def shell(line: str) -> tuple[str, ...]:
    """Return the command that runs a line of shell."""
    return ("sh", "-c", line)


def measure_tree(bench: Bench, tree: Path, cases: Sequence[Case]) -> None:
    """Run the cases on every subject, alternating, after each subject has served the whole tree once."""
    with bench.scratch() as scratch, ExitStack() as stack:
        bench.say("  making an image of the tree")
        image = stack.enter_context(served_image(tree, scratch))
        subjects = _with_the_right_bytes(bench, open_subjects(bench, stack, tree, scratch, image))
        here = [case for case in cases if not _cannot(bench, case)]
        for number in bench.runs():
            for case in here:
                for subject in bench.alternate(subjects, number):
                    try:
                        _measure(bench, subject, case)
                    except _FAILURES as error:
                        bench.skip(f"{subject.name}: {case.name}", str(error), failed=True)
                        subjects.remove(subject)
            for subject in subjects:
                if memory := subject.memory():
                    bench.record("memory of the server afterwards (PSS)", subject.name, memory, "bytes")


def _with_the_right_bytes(bench: Bench, subjects: Sequence[Subject]) -> list[Subject]:
    """Return the subjects that show the tree correctly, mounted and with all of it fetched."""
    expected = ""
    right = []
    for subject in subjects:
        try:
            subject.mount()
            found = _digest(subject.directory)
            subject.settle()
        except _FAILURES as error:
            bench.skip(subject.name, str(error), failed=True)
            continue
        expected = expected or found
        if found != expected:
            bench.skip(subject.name, "it shows another tree", failed=True)
            continue
        right.append(subject)
    return right


def _digest(directory: Path) -> str:
    facts = subprocess.Popen(["sh", "-c", _FACTS], cwd=directory, stdout=subprocess.PIPE)
    digest = subprocess.run(["sha256sum"], stdin=facts.stdout, check=True, capture_output=True, text=True)
    if facts.wait():
        raise ServerError(f"the tree at {directory} cannot be read")
    return digest.stdout


def _cannot(bench: Bench, case: Case) -> bool:
    why = why_not(["drop_caches"]) if case.before in _DROPPED else ""
    if why:
        bench.skip(case.name, why)
    return bool(why)


def _measure(bench: Bench, subject: Subject, case: Case) -> None:
    if case.before == "mounted afresh":
        subject.unmount()
        _drop(case)
        seconds = _seconds(subject.mount)
        if not isinstance(subject, Extracted):
            bench.record("mount, all dropped", subject.name, seconds, "s")
    elif case.before == "warm":
        _run(subject.directory, case)
    else:
        _drop(case)
    bench.record(case.name, subject.name, _run(subject.directory, case), "s")


def _drop(case: Case) -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text(_DROPPED[case.before])


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _run(directory: Path, case: Case) -> float:
    start = time.perf_counter()
    if case.own_clock:
        done = subprocess.run(case.command, cwd=directory, check=True, stdout=subprocess.PIPE)
        return float(done.stdout)
    subprocess.run(case.command, cwd=directory, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
