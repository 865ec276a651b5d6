"""The core stays thin: rooms, modules, functions and constructors have limits."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from meta.repository import ROOT, modules

CORE = ROOT / "core" / "lazylayer"
ENGINE = ("fetching", "layers", "mounts", "linux")
READ_PATH = ("fetching", "layers")

MAX_ENGINE_LINES = 3200
"""What a read or a mount goes through."""
MAX_CORE_LINES = 7850
"""The core without its command line; what neither a read nor a mount needs belongs in a plugin."""
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_ARGUMENTS = 6
"""Of constructors on the way of a read, without `self`."""


def lines_of(path: Path) -> int:
    return path.read_text().count("\n")


def lines_in(folder: Path) -> int:
    return sum(map(lines_of, folder.rglob("*.py")))


def shipped_modules() -> Iterator[Path]:
    """Yield the modules of every distribution, without their tests."""
    for path in modules():
        parts = path.relative_to(ROOT).parts
        if parts[0] in ("core", "libs", "plugins", "bench") and "tests" not in parts:
            yield path


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node


def test_the_engine_is_small() -> None:
    assert sum(lines_in(CORE / room) for room in ENGINE) <= MAX_ENGINE_LINES


def test_the_core_is_thin() -> None:
    assert lines_in(CORE) - lines_in(CORE / "cli") <= MAX_CORE_LINES


def test_modules_are_small() -> None:
    assert {str(path): lines for path in shipped_modules() if (lines := lines_of(path)) > MAX_MODULE_LINES} == {}


def test_functions_are_small() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{function.name}": lines
        for path in shipped_modules()
        for function in functions(path)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_constructors_on_the_way_of_a_read_take_few_arguments() -> None:
    crowded = {
        f"{path.relative_to(ROOT)}:{function.lineno}": count
        for room in READ_PATH
        for path in (CORE / room).rglob("*.py")
        for function in functions(path)
        if function.name == "__init__"
        and (count := len(function.args.args) + len(function.args.kwonlyargs) - 1) > MAX_ARGUMENTS
    }
    assert crowded == {}
