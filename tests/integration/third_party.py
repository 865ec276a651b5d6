"""A cache plugin of a stranger, made of nothing but what the guide says, and installed with pip."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from meta.repository import ROOT

__all__ = ["GUIDE", "guide_files", "pip_install", "write_distribution"]

GUIDE = ROOT / "docs" / "writing-a-plugin.md"
_FILE = re.compile(r"^`([\w./-]+)`:\n\n```(?:toml|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def guide_files() -> dict[str, str]:
    """Return the files that the guide shows whole, by path."""
    return dict(_FILE.findall(GUIDE.read_text()))


def write_distribution(directory: Path, names: Mapping[str, str]) -> None:
    """Write the guide's distribution, with other names, and the two files that the guide only mentions."""
    files = {**guide_files(), "lazylayer_cache_tiny/py.typed": "", "README.md": "# A cache\n"}
    for path, text in files.items():
        target = directory / _renamed(path, names)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_renamed(text, names))


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for name, other in names.items():
        text = text.replace(name, other)
    return text


def pip_install(distribution: Path, target: Path) -> None:
    """Install a distribution with pip, as any user would, into a directory for PYTHONPATH."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), "."]
    environment_says = ["--disable-pip-version-check", "--no-cache-dir", "--root-user-action=ignore"]
    done = subprocess.run(
        [*command, *environment_says], cwd=distribution, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
