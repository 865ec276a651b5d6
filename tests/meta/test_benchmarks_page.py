"""docs/benchmarks.md names every workload and every option of the suite."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from meta.repository import ROOT

PAGE = (ROOT / "docs" / "benchmarks.md").read_text()


def _run(option: str) -> str:
    command: list[str | Path] = [sys.executable, ROOT / "bench" / "run.py", option]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


def test_every_workload_is_explained() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", PAGE.partition("## Workloads")[2], re.MULTILINE)
    assert rows == _run("--list").split()


def test_every_option_is_explained() -> None:
    offered = set(re.findall(r"^  (--[a-z-]+)", _run("--help"), re.MULTILINE))
    assert offered == set(re.findall(r"^\| `(--[a-z-]+)", PAGE, re.MULTILINE))
