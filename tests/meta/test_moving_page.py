"""docs/moving-from-stargz.md has a line for every key, label and command, and says what the translation does."""

from __future__ import annotations

import tomllib

from lazylayer_tool_node.stargz import KEYS
from meta.repository import ROOT

PAGE = (ROOT / "docs" / "moving-from-stargz.md").read_text()
NAMES = tomllib.loads((ROOT / "tests" / "meta" / "stargz_names.toml").read_text())


def rows() -> dict[str, str]:
    """Return the rows of all tables of the page: the name in the first cell, and the second cell."""
    found = {}
    for line in PAGE.splitlines():
        cells = line.split("|")
        if len(cells) == 4 and cells[1].strip().startswith("`"):
            found[cells[1].strip().strip("`")] = cells[2].strip()
    return found


def test_every_name_has_a_line_and_every_line_a_name() -> None:
    names = [name for group in ("keys", "labels", "commands") for name in NAMES[group]]
    assert set(rows()) == set(names)
    assert all(rows().values())


def test_the_page_says_what_import_does() -> None:
    assert set(KEYS) == set(NAMES["keys"])
    for name, key in KEYS.items():
        if key.ours:
            assert rows()[name].startswith(f"`{key.ours}`"), name
        else:
            assert rows()[name].startswith(key.reason[:1].upper() + key.reason[1:]), name
