"""The benchmark suite measures, compares, prints and writes results; no test depends on their values."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meta.repository import ROOT
from suite.plots import draw
from suite.results import Machine, Report, Result, Skipped
from suite.table import format_value, render

MACHINE = Machine(
    architecture="x86_64",
    processors=2,
    memory=4 << 30,
    kernel="6.12",
    system="Debian",
    file_system="ext4",
    python="3.11",
    lazylayer="0",
)


def _result(subject: str, values: list[float], **facts: Any) -> Result:
    return Result(**{"workload": "tree", "case": "walk", "subject": subject, "unit": "s", "values": values} | facts)


def _report(*results: Result) -> Report:
    references = {result.workload: ["extracted tree", "absent"] for result in results}
    skipped = [Skipped("tree: peer", "this needs root"), Skipped("kill", "command\nlast words\n", failed=True)]
    return Report(
        machine=MACHINE,
        started="2000-01-01",
        runs=3,
        quick=False,
        references=references,
        results=list(results),
        skipped=skipped,
    )


def _run(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "bench" / "run.py", *options]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for number in range(5):
        (root / f"directory-{number}").mkdir(parents=True)
        (root / f"directory-{number}" / "file").write_bytes(bytes([number]) * 10_000 * (number + 1))
    (root / "link").symlink_to("directory-1")
    return root


class TestReport:
    def test_ratios_are_those_of_medians(self) -> None:
        reference, measured = _result("extracted tree", [9.0, 2.0, 1.0]), _result("lazylayer", [1.0, 7.0, 5.0])
        report = _report(reference, measured)
        assert report.ratios(measured) == {"extracted tree": 2.5}
        assert report.ratios(reference) == {}

    def test_only_the_same_case_at_the_same_size_is_compared(self) -> None:
        measured = _result("lazylayer", [4.0], at=10)
        others = [
            _result("extracted tree", [1.0], case="read", at=10),
            _result("extracted tree", [1.0], at=20),
            _result("extracted tree", [1.0], at=10, unit="bytes"),
        ]
        assert _report(measured, *others).ratios(measured) == {}
        assert _report(measured, *others, _result("extracted tree", [2.0], at=10)).ratios(measured) != {}

    def test_nothing_is_divided_by_zero(self) -> None:
        measured = _result("lazylayer", [4.0])
        assert _report(measured, _result("extracted tree", [0.0])).ratios(measured) == {}

    def test_json_has_values_medians_and_ratios(self) -> None:
        report = _report(_result("extracted tree", [2.0]), _result("lazylayer", [1.0, 3.0, 8.0]))
        found = json.loads(report.to_json())
        assert found["results"][1]["values"] == [1.0, 3.0, 8.0]
        assert (found["results"][1]["median"], found["results"][1]["ratios"]) == (3.0, {"extracted tree": 1.5})
        assert msgspec.convert(found, Report) == report

    @pytest.mark.parametrize(
        ("value", "unit", "shown"),
        [
            (0.0, "s", "0.00 µs"),
            (0.0123, "s", "12.3 ms"),
            (61.0, "s", "61 s"),
            (123.4, "s", "123 s"),
            (999, "bytes", "999 B"),
            (4_200_000, "bytes", "4.2 MB"),
            (12.0, "count", "12"),
        ],
    )
    def test_values_are_shown_with_their_unit(self, value: float, unit: str, shown: str) -> None:
        assert format_value(value, unit) == shown

    def test_the_table_has_sizes_in_order_and_what_was_skipped(self) -> None:
        sizes = [_result("lazylayer", [size / 1e3], at=size, at_unit="entries") for size in (100, 20)]
        lines = list(render(_report(_result("extracted tree", [2.0]), _result("lazylayer", [4.0]), *sizes)))
        table = "\n".join(lines)
        assert "÷ extracted tree" in table
        assert "÷ absent" not in table
        assert table.index("walk, 20 entries") < table.index("walk, 100 entries")
        assert [line.split()[-1] for line in lines if line.startswith(" ") and "lazylayer" in line][:1] == ["2.00"]
        assert lines[-2:] == ["tree: peer: this needs root", "kill: FAILED: last words"]

    def test_plots_are_drawn_of_bars_and_of_sizes(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib", reason="not installed: the extra `bench`")
        sizes = [_result("lazylayer", [size / 1e3], at=size, at_unit="entries") for size in (1, 10_000)]
        plain = [_result("lazylayer", [1.0], case=f"case {number}", unit="bytes") for number in range(5)]
        plain.append(_result("lazylayer", [number / 10 for number in range(20)], case="rounds"))
        drawn = draw(_report(*plain, *sizes), tmp_path)
        assert [path.name for path in drawn] == ["tree.png", "tree-by-size.png"]
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


class TestSuite:
    def test_it_measures_shows_and_writes(self, tree: Path, tmp_path: Path) -> None:
        output = tmp_path / "output"
        options: list[str | Path] = ["--quick", "--runs", "2", "--only", "caches,tree,mount-time", "--tree", tree]
        done = _run(*options, "--work", tmp_path / "work", "--output", output)
        assert done.returncode == 0, done.stderr
        found = json.loads((output / "results.json").read_bytes())
        values = {(each["workload"], each["case"], each["subject"]): each["values"] for each in found["results"]}
        assert len(values["caches", "get 50 kB", "cache_dir"]) == 2
        assert len(values["tree", "walk, warm", "extracted tree"]) == 2
        here = {subject for workload, _, subject in values if workload == "tree"}
        not_here = {each["what"].removeprefix("tree: ") for each in found["skipped"]}
        assert {"lazylayer, EROFS", "lazylayer, FUSE"} <= here | not_here
        assert (output / "table.txt").read_text() in done.stdout
        assert "== tree ==" in done.stdout
        assert list((tmp_path / "work").iterdir()) == []

    def test_what_cannot_be_measured_is_said_and_the_rest_goes_on(self, tmp_path: Path) -> None:
        directories = [Path(each) for each in os.environ["PATH"].split(os.pathsep)]
        programs = tmp_path / "programs"
        programs.mkdir()
        for name in ("sh", "findmnt"):
            found = next(each / name for each in directories if (each / name).exists())
            (programs / name).symlink_to(found)
        command: list[str | Path] = [sys.executable, ROOT / "bench" / "run.py", "--quick"]
        command += ["--only", "convert,node-modules,tree,kill,caches"]
        command += ["--work", tmp_path / "work", "--output", tmp_path / "output"]
        environment = {**os.environ, "PATH": str(programs)}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert "node-modules: not installed: npm, node\n" in done.stdout
        assert "not installed: containerd, ctr, ctr-remote, runc" in done.stdout
        assert "tree: not installed: debootstrap\n" in done.stdout
        assert "kill: " in done.stdout
        assert "FAILED" not in done.stdout
        assert "== caches ==" in done.stdout

    def test_a_failure_is_said_the_rest_goes_on_and_the_exit_code_tells(self, tmp_path: Path) -> None:
        options: list[str | Path] = ["--quick", "--only", "tree,caches", "--tree", tmp_path / "absent"]
        done = _run(*options, "--work", tmp_path / "work", "--output", tmp_path / "output")
        assert done.returncode == 1
        assert "tree: FAILED: " in done.stdout
        assert "== caches ==" in done.stdout

    @pytest.mark.servers
    @pytest.mark.fuse
    def test_a_peer_is_a_command(self, as_root: None, tree: Path, server_directory: Path, tmp_path: Path) -> None:
        program = f"{sys.executable} -m lazylayer --set=root={{root}} --set=run={{root}}/run"
        host = """'--set=resolve.plain_http=["{host}"]'"""
        work = server_directory / "bench"
        options: list[str | Path] = [
            "--quick",
            "--only",
            "tree",
            "--tree",
            tree,
            "--work",
            work,
            "--output",
            tmp_path / "output",
        ]
        peers = ["--peer", f"another={program} {host} serve --address {{sock}}"]
        done = _run(*options, *peers, "--peer", "broken=false {sock}")
        shutil.rmtree(work)
        assert done.returncode == 1, done.stderr
        assert done.stdout.count("FAILED") == 1
        assert "tree: broken: FAILED: false ended with exit code 1" in done.stdout
        assert "÷ another" in done.stdout
        found = json.loads((tmp_path / "output" / "results.json").read_bytes())
        cases = {each["case"] for each in found["results"] if each["subject"] == "another"}
        assert {"walk, mounted afresh", "mount, all dropped", "read all, warm"} <= cases

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            (["--only", "nonsense"], "unknown workload: nonsense; expected one of cold-start, "),
            (["--peer", "nonsense"], "expected NAME=CMD"),
        ],
    )
    def test_wrong_options_are_explained(self, options: list[str], complaint: str, tmp_path: Path) -> None:
        done = _run(*options, "--work", tmp_path)
        assert done.returncode != 0
        assert complaint in done.stderr
