"""The short form of each campaign; `make torture` runs the complete ones."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lazylayer_testing.servers.process import wait_until
from torture.__main__ import CAMPAIGNS
from torture.branches import BRANCHES, Branch, mark_branches
from torture.campaign import MIXED, Campaign, run_cases
from torture.scratch import MARK, Scratch

SHORT = {
    "fuzz": 1700,
    "faults": 25,
    "kills": 4,
    "syscalls": 10,
    "crashes": 16,
    "stateful": 1,
    "stalls": 1,
    "posix": 15,
}


@pytest.mark.parametrize("campaign", CAMPAIGNS, ids=lambda campaign: campaign.name)
def test_short_form(campaign: type[Campaign], monkeypatch: pytest.MonkeyPatch) -> None:
    if campaign.name != "fuzz" and (os.geteuid() != 0 or not Path("/dev/fuse").exists()):
        pytest.skip("needs root and /dev/fuse")
    if reason := campaign.available():
        pytest.skip(reason)
    monkeypatch.setattr(campaign, "per_case", min(campaign.per_case, 8))
    result = run_cases(campaign, MIXED, 1, SHORT[campaign.name])
    assert [(each.command, each.problem) for each in result.failures] == []
    assert result.cases == SHORT[campaign.name]


def test_each_rare_branch_is_found_once() -> None:
    for module in {branch.module for branch in BRANCHES}:
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None
        expected = [branch for branch in BRANCHES if branch.module == module]
        _, found = mark_branches(Path(spec.origin).read_text(), expected)
        assert sorted(found) == sorted(branch.name for branch in expected)


def test_branches_that_run_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "def work(fail):\n    try:\n        1 / fail\n    except ZeroDivisionError:\n        return 1\n    return 2\n"
    )
    branches = [Branch("zero", "", "", "except ZeroDivisionError"), Branch("two", "", "", "return 2")]
    tree, found = mark_branches(source, branches)
    assert sorted(found) == ["two", "zero"]
    monkeypatch.setenv(MARK, str(tmp_path))
    names: dict[str, Callable[[int], int]] = {}
    exec(compile(tree, "it", "exec"), names)
    assert [names["work"](each) for each in (0, 1, 0)] == [1, 2, 1]
    assert (tmp_path / "branches").read_text().split() == ["zero", "two", "zero"]


class Hangs(Campaign):
    """Leaves a process, and waits."""

    name = "hangs"
    kinds = ("it",)
    unit = "cases"
    counts = 1
    deadline = 2.0

    def run(self, kind: str, seed: int) -> str:
        """Start a process that outlives this one, and never return."""
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        Path(os.environ["CHILD"]).write_text(str(child.pid))
        time.sleep(600)
        return ""


def test_what_a_case_that_hangs_leaves_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHILD", str(tmp_path / "child"))
    result = run_cases(Hangs, "it", 7, 3, patience=1)
    assert [(each.seed, each.hung) for each in result.failures] == [(7, True)]
    assert "in run" in result.failures[0].problem
    child = Path("/proc", (tmp_path / "child").read_text())
    wait_until(lambda: not child.exists() or ") Z " in (child / "stat").read_text(), "its child is gone", 10)


@pytest.mark.fuse
def test_mounts_that_are_left_are_removed() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with Scratch("left") as scratch:
        inner = scratch.directory / "a" / "b"
        inner.mkdir(parents=True)
        for each in (scratch.directory / "a", scratch.directory / "a"):
            subprocess.run(["mount", "-t", "tmpfs", "torture", each], check=True)
    assert not scratch.directory.exists()
    assert str(scratch.directory) not in Path("/proc/self/mounts").read_text()
    assert MARK not in os.environ
