"""What somebody does who has just cloned the repository: the README's commands, and what they rest on."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from meta.repository import PLUGIN_FOLDERS, ROOT

FOLDERS = [ROOT, ROOT / "core", *PLUGIN_FOLDERS]
SCRIPTS = sorted(path for path in [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"] if path.is_file())


def readme_commands() -> list[str]:
    section = (ROOT / "README.md").read_text().partition("## Try it")[2].partition("\n## ")[0]
    return section.split("```")[1].split("\n")[1:-1]


def required_names(folder: Path) -> Iterator[str]:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    for requirement in chain(project.get("dependencies", []), *project.get("optional-dependencies", {}).values()):
        yield re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")


def test_the_readme_has_one_command_to_try_it_and_one_to_test_it() -> None:
    assert readme_commands() == ["make demo", "make test"]


@pytest.mark.parametrize("target", ["demo", "test", "lint", "bench", "clean", "constraints"])
def test_make_knows_and_explains_its_targets(target: str) -> None:
    # Inside `make test` the outer make's flags would come along.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True, env=environment)
    assert f"| `make {target}` |" in (ROOT / "CONTRIBUTING.md").read_text()


def test_continuous_integration_runs_the_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()[-1]


def test_constraints_are_names_and_versions() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.+!]*", line)] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_constraints_have_what_is_required(folder: Path) -> None:
    text = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    held = {line.partition("==")[0] for line in text.splitlines()}
    missing = {name for name in required_names(folder) if not name.startswith("lazylayer")} - held
    assert missing == set(), "run `make constraints`, or add a line for each"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_can_be_run(script: Path) -> None:
    first = script.read_text().partition("\n")[0]
    assert os.access(script, os.X_OK)
    assert first in ("#!/bin/sh", "#!/usr/bin/env python3")
    if first == "#!/bin/sh":
        subprocess.run(["sh", "-n", script], check=True)


@pytest.mark.parametrize("script", ["debian-packages", "fresh-machine"])
def test_scripts_explain_themselves(script: str) -> None:
    done = subprocess.run([ROOT / "scripts" / script, "nonsense"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: scripts/{script} ")
