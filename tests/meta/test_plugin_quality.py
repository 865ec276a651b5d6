"""Our plugins state their quality honestly: what a machine can check of docs/plugin-quality.md is checked here.

The tests named as evidence in each `quality.toml` show the rest.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lazylayer.api.settings import Settings
from lazylayer.cli.quality import RULES, TIERS, Statement, find_statement, read_statement
from lazylayer.configuration.loading import load_configuration
from lazylayer.plugin.options import declared_options, read_options

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in ROOT.glob("plugins/[a-z]*/pyproject.toml"))
PROGRAMS = {"snapshotter_containerd", "tool_images", "tool_index", "tool_node"}
"""Plugins that are programs, and may use the faces of rooms besides."""

STABLE = {"api", "errors", "linux"}
FACES = {"cli", "fetching", "layers", "mounts", "program"}
FACES_OF_COMMANDS = {"cli", "mounts", "program"}


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture
def statement(folder: Path) -> Statement:
    path = find_statement(f"lazylayer_{folder.name}")
    assert path == folder / f"lazylayer_{folder.name}" / "quality.toml"
    return read_statement(path)


def states(statement: Statement, rule: str) -> bool:
    """Return True if a plugin states evidence for a rule."""
    return bool(statement.answers[rule].evidence)


def targets(folder: Path) -> list[EntryPoint]:
    ours = [*entry_points(group="lazylayer.plugins"), *entry_points(group="lazylayer.commands")]
    return [each for each in ours if each.module.partition(".")[0] == f"lazylayer_{folder.name}"]


def plugin_of(folder: Path) -> Any:
    found = next((each for each in targets(folder) if each.group == "lazylayer.plugins"), None)
    plugin = found.load() if found is not None else None
    return plugin() if isinstance(plugin, type) else plugin


def test_every_rule_is_answered(statement: Statement) -> None:
    assert sorted(statement.answers) == sorted(rule for rules in RULES.values() for rule in rules)


def test_evidence_is_there(folder: Path, statement: Statement) -> None:
    for rule, answer in statement.answers.items():
        for path in answer.evidence:
            assert (folder / path).is_file(), rule


def test_ships_with_the_wheel(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [f"lazylayer_{folder.name}"]


def test_loads_alone(folder: Path, statement: Statement) -> None:
    assert states(statement, "loads-alone")
    modules = sorted({each.module for each in targets(folder)})
    script = "import importlib, sys; [importlib.import_module(each) for each in sys.argv[1:]]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, *modules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    others = {f"lazylayer_{other.name}" for other in FOLDERS if other != folder}
    assert {name.partition(".")[0] for name in done.stdout.split()} & others == set()


def test_options(folder: Path, statement: Statement) -> None:
    plugin = plugin_of(folder)
    options = declared_options(plugin) if plugin is not None else None
    assert states(statement, "options") == (options is not None)
    if options is not None:
        assert options.__struct_config__.forbid_unknown_fields
        options()  # has a default for everything


def test_stable_imports(folder: Path, statement: Statement) -> None:
    commands = {each.module for each in targets(folder) if each.group == "lazylayer.commands"}
    unstable = []
    for path in sorted((folder / f"lazylayer_{folder.name}").rglob("*.py")):
        module = ".".join(path.relative_to(folder).with_suffix("").parts)
        faces = FACES if folder.name in PROGRAMS else FACES_OF_COMMANDS if module in commands else set()
        unstable += [f"{module}: {name}" for name in imports(path) if not is_stable(name, faces)]
    assert states(statement, "stable-imports") == (not unstable), unstable


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of lazylayer that a file imports, for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "lazylayer":
            yield node.module
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.partition(".")[0] == "lazylayer")


def is_stable(name: str, faces: set[str]) -> bool:
    _, _, inside = name.partition(".")
    return not inside or inside.partition(".")[0] in STABLE or inside in faces


def test_kit(folder: Path, statement: Statement) -> None:
    plugin = plugin_of(folder)
    kits = {each.name for each in entry_points(group="lazylayer.kits")}
    checked = sorted(kits & set(dir(plugin)))
    assert states(statement, "kit") or not checked, checked
    for path in statement.answers["kit"].evidence:
        assert "lazylayer_testing" in (folder / path).read_text()


def test_readme(folder: Path, statement: Statement) -> None:
    text = (folder / "README.md").read_text()
    plugin = plugin_of(folder)
    options = declared_options(plugin) if plugin is not None else None
    names = options.__struct_encode_fields__ if options is not None else ()
    unexplained = [name for name in names if f"`{name}`" not in text and f"[{name}" not in text]
    assert states(statement, "readme") == (not unexplained), unexplained


def examples(readme: Path) -> list[str]:
    """Return the examples of our configuration in a README: blocks of TOML, fenced or indented."""
    text = readme.read_text()
    fenced: list[str] = re.findall(r"^```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    indented: list[str] = re.findall(r"^ {4}\[[a-z_.]+\]\n(?: {4}.*\n)*", text, re.MULTILINE)
    found = [*fenced, *(re.sub(r"^ {4}", "", each, flags=re.MULTILINE) for each in indented)]
    ours = {*Settings.__struct_encode_fields__, "plugin", "resolver"}
    return [each for each in found if ours & tomllib.loads(each).keys()]


def test_examples(folder: Path, statement: Statement, tmp_path: Path) -> None:
    found = examples(folder / "README.md")
    assert states(statement, "tested-examples") == bool(found)
    plugin = plugin_of(folder)
    for number, example in enumerate(found):
        file = tmp_path / f"{number}.toml"
        file.write_text(example)
        configuration = load_configuration(file, (), {})
        assert configuration.settings != Settings() or configuration.plugin_tables, example
        if plugin is not None and (options := declared_options(plugin)) is not None:
            table = getattr(plugin, "options_table", "")
            assert isinstance(read_options(configuration.plugin_tables, folder.name, options, table), msgspec.Struct)


def test_page_explains_every_rule() -> None:
    page = (ROOT / "docs" / "plugin-quality.md").read_text()
    for tier, rules in RULES.items():
        section = page.partition(f"\n## {tier.capitalize()}\n")[2].partition("\n## ")[0]
        assert tuple(re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)) == rules


def test_example_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "plugin-quality.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "quality.toml").write_text(example)
    assert read_statement(tmp_path / "quality.toml").tier == "bronze"


def test_most_of_ours_fail_well() -> None:
    reached = [read_statement(folder / f"lazylayer_{folder.name}" / "quality.toml").tier for folder in FOLDERS]
    assert sum(tier in ("silver", "gold") for tier in reached) >= len(FOLDERS) // 2
    assert set(reached) <= {"", *TIERS}
    assert importlib.import_module("lazylayer.cli.quality").TIERS == ("bronze", "silver", "gold")
