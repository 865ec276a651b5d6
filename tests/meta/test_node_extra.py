"""`lazylayer[node]` and `pip install .` bring every plugin, and nothing that only developers need."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from meta.repository import PLUGIN_FOLDERS, ROOT

DEVELOPERS = {"pytest", "hypothesis", "pytest-timeout", "lazylayer-testing", "ruff", "mypy"}


def project(folder: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    return table


def split(requirement: str) -> tuple[str, tuple[str, ...]]:
    """Return the name and the extras that a requirement asks for."""
    found = re.match(r"([A-Za-z0-9_.-]+)(?:\[([^\]]*)\])?", requirement)
    assert found is not None
    return found[1], tuple(filter(None, (found[2] or "").split(",")))


def closure(requirements: list[str]) -> set[str]:
    """Return the names of all that these requirements bring, as far as this repository knows."""
    folders = ["core", *(f"plugins/{each.name}" for each in PLUGIN_FOLDERS)]
    folders += [str(path.parent.relative_to(ROOT)) for path in ROOT.glob("libs/*/pyproject.toml")]
    known = {project(folder)["name"]: project(folder) for folder in folders}
    found: set[str] = set()
    waiting = list(requirements)
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        if requirement in seen:
            continue
        seen.add(requirement)
        name, extras = split(requirement)
        found.add(name)
        table = known.get(name, {})
        waiting += table.get("dependencies", [])
        for extra in extras:
            waiting += table["optional-dependencies"][extra]
    return found


def test_the_extra_brings_every_plugin() -> None:
    brought = closure(project("core")["optional-dependencies"]["node"])
    assert {project(f"plugins/{each.name}")["name"] for each in PLUGIN_FOLDERS if each.name != "_template"} <= brought


def test_a_checkout_brings_the_same() -> None:
    more = closure(project(".")["dependencies"]) - closure(["lazylayer[node]"])
    assert closure(["lazylayer[node]"]) <= closure(project(".")["dependencies"])
    assert more <= {project(str(path.parent.relative_to(ROOT)))["name"] for path in ROOT.glob("libs/*/pyproject.toml")}


def test_nothing_for_developers_comes_along() -> None:
    assert closure(project(".")["dependencies"]) & DEVELOPERS == set()
    assert closure(project(".")["optional-dependencies"]["dev"]) & DEVELOPERS == DEVELOPERS
