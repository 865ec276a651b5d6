"""The page that follows a read shows the code as it is."""

from __future__ import annotations

import re

import pytest

from meta.repository import ROOT

PAGE = (ROOT / "docs" / "a-read-line-by-line.md").read_text()
EXCERPTS = re.findall(r"^```python (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_page_has_excerpts() -> None:
    assert len(EXCERPTS) >= 10
    assert PAGE.count("```python") == len(EXCERPTS)


@pytest.mark.parametrize(("path", "code"), EXCERPTS)
def test_excerpt_is_the_code(path: str, code: str) -> None:
    assert code in (ROOT / path).read_text()
