"""The examples of docs/credentials.md work: the sample keychain passes the sample's conformance tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lazylayer.configuration.loading import load_configuration
from meta.repository import ROOT

PAGE = (ROOT / "docs" / "credentials.md").read_text()
CONFIGURATIONS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", CONFIGURATIONS)
def test_configurations_are_valid(example: str, tmp_path: Path) -> None:
    file = tmp_path / "lazylayer.toml"
    file.write_text(example)
    assert load_configuration(file, (), {}).settings.plugins.enabled


def test_the_sample_keychain_passes_its_tests(tmp_path: Path) -> None:
    samples = re.findall(r"`([a-z_]+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert [name for name, _ in samples] == ["keychain_vault.py", "test_keychain_vault.py"]
    for name, text in samples:
        (tmp_path / name).write_text(text)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        tmp_path,
        tmp_path,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 20
    assert "skipped" not in done.stdout
