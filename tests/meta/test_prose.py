"""Docstrings, comments, messages and pages read as a native engineer would write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from meta.prose import breaches_in_docstrings, breaches_in_text
from meta.repository import ROOT, text_files

FILES = [
    path for path in text_files() if path.suffix in (".py", ".md") and path.name not in ("prose.py", "CHANGELOG.md")
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose(path: Path) -> None:
    breaches = list(breaches_in_text(path.read_text()))
    if path.suffix == ".py" and not path.name.startswith("test_"):
        breaches += breaches_in_docstrings(path)
    assert breaches == []


def test_breaches_are_found(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text('def f():\n    """Returns what no' + 'body knows."""\n')
    assert {each.rule for each in breaches_in_docstrings(file)} == {"begin with an imperative verb"}
    assert [each.line for each in breaches_in_text(file.read_text())] == [2]


def test_summaries_of_modules_and_attributes_are_no_questions(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text('"""What it is for."""\nsize = 1\n"""How large it is.\n\nIn bytes."""\n')
    assert [each.line for each in breaches_in_docstrings(file)] == [1, 3]
