"""Every hook is explained where an author looks for it, and is tested."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

from lazylayer.api import hookspecs
from lazylayer_building import hookspecs as building
from meta.repository import ROOT

HOOKS = {
    name: function
    for module in (*hookspecs.MODULES, building)
    for name, function in vars(module).items()
    if name.startswith("lazylayer_")
}
GUIDE = ROOT / "docs" / "writing-a-plugin.md"


def documentation(hook: str) -> str:
    return inspect.getdoc(HOOKS[hook]) or ""


def arguments(hook: str) -> list[str]:
    return list(inspect.signature(HOOKS[hook]).parameters)


def is_first_result(hook: str) -> bool:
    return bool(HOOKS[hook].lazylayer_spec["firstresult"])


@pytest.mark.parametrize("hook", HOOKS)
class TestDocstrings:
    def test_first_line_says_what_the_hook_is_for(self, hook: str) -> None:
        first, blank, *_ = documentation(hook).splitlines()
        assert first.endswith(".")
        assert blank == ""

    def test_says_how_the_answers_are_taken(self, hook: str) -> None:
        text = documentation(hook)
        if is_first_result(hook):
            assert "Stops at the first result that is not None; None " in text
        else:
            assert ("All plugins are called" in text) != bool(re.search(r"\bOnly the (\w+ )?(plugin|frontend)\b", text))

    def test_explains_every_argument(self, hook: str) -> None:
        assert re.findall(r"^:param (\w+):", documentation(hook), re.MULTILINE) == arguments(hook)

    def test_explains_the_result(self, hook: str) -> None:
        answers = inspect.signature(HOOKS[hook]).return_annotation != "None"
        assert (":returns:" in documentation(hook)) == answers

    def test_has_an_example_that_is_python(self, hook: str) -> None:
        _, found, rest = documentation(hook).partition("Example::\n\n")
        assert found
        example = inspect.cleandoc(rest.partition("\nThreading and errors:")[0])
        names = [each.name for each in ast.walk(ast.parse(example)) if isinstance(each, ast.FunctionDef)]
        assert hook in names

    def test_example_takes_arguments_of_the_hook(self, hook: str) -> None:
        rest = documentation(hook).partition("Example::\n\n")[2]
        tree = ast.parse(inspect.cleandoc(rest.partition("\nThreading and errors:")[0]))
        (function,) = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef) and each.name == hook]
        assert {each.arg for each in function.args.args} - {"self"} <= set(arguments(hook))

    def test_ends_with_threading_and_errors(self, hook: str) -> None:
        last = documentation(hook).rpartition("\n\n")[2]
        assert last.startswith("Threading and errors: ")


@pytest.mark.parametrize("hook", HOOKS)
def test_guide_has_the_hook_with_its_arguments(hook: str) -> None:
    assert f"{hook}({', '.join(arguments(hook))})" in GUIDE.read_text()


def test_guide_knows_no_other_hooks() -> None:
    named = set(re.findall(r"\blazylayer_[a-z_]+(?=\()", GUIDE.read_text()))
    assert named <= set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test(hook: str) -> None:
    tests = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "plugins").glob("*/tests/test_*.py")]
    method = rf"\b(?:hooks|hooks_of\(.*\))\.{hook.removeprefix('lazylayer_')}\("
    assert any(re.search(rf"{method}|\b{hook}\b", path.read_text()) for path in tests if path.parent.name != "meta")
