"""Docstrings, comments, messages and pages read as a native engineer would write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from meta.prose import breaches_in_docstrings, breaches_in_text
from meta.repository import ROOT, text_files

UNFINISHED = ("bench", "core", "deploy", "docs", "libs", "plugins", "scripts", "tests")
"""Folders whose prose has not been revised yet."""

FILES = [
    path for path in text_files() if path.suffix in (".py", ".md") and path.name not in ("prose.py", "CHANGELOG.md")
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose(path: Path) -> None:
    if str(path.relative_to(ROOT)).startswith(UNFINISHED):
        pytest.skip("its prose has not been revised yet")
    breaches = list(breaches_in_text(path.read_text()))
    if path.suffix == ".py" and not path.name.startswith("test_"):
        breaches += breaches_in_docstrings(path)
    assert breaches == []
