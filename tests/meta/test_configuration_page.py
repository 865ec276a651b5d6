"""docs/configuration.md says what the settings say, and its examples are right."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from lazylayer.configuration.loading import load_configuration
from meta.repository import PLUGIN_FOLDERS, ROOT
from meta.settings_tables import tables

PAGE = (ROOT / "docs" / "configuration.md").read_text()
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def test_tables_are_those_of_the_settings() -> None:
    # To mend it: PYTHONPATH=tests python -m meta.settings_tables
    assert tables() in PAGE


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_can_be_loaded(example: str, tmp_path: Path) -> None:
    file = tmp_path / "lazylayer.toml"
    file.write_text(example)
    tables = load_configuration(file, (), {}).plugin_tables
    assert set(tables.get("plugin", {})) <= {folder.name for folder in PLUGIN_FOLDERS} | {"cache_mine"}
    assert tomllib.loads(example)


def test_every_plugin_is_linked() -> None:
    for folder in PLUGIN_FOLDERS:
        assert folder.name == "_template" or f"(../plugins/{folder.name}/README.md)" in PAGE
