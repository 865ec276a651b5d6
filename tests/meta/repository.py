"""The files of this repository, for tests that hold its rules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["PLUGIN_FOLDERS", "ROOT", "modules", "text_files"]

ROOT = Path(__file__).resolve().parents[2]
PLUGIN_FOLDERS = sorted(folder for folder in (ROOT / "plugins").iterdir() if (folder / "pyproject.toml").is_file())

_NOT_OURS = {".git", ".venv", "__pycache__", "node_modules", "build", "dist"}
_SUFFIXES = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".service", ".cfg", ".sh", ""}


def text_files() -> Iterator[Path]:
    """Return every file that people wrote, in a checkout, an archive or a copy."""
    for directory, folders, names in os.walk(ROOT):
        folders[:] = sorted(
            each
            for each in folders
            if (each not in _NOT_OURS and not each.endswith(("_cache", ".egg-info", ".dist-info")) and each[0] != ".")
            or each == ".ci"
        )
        for name in sorted(names):
            path = Path(directory, name)
            if path.suffix in _SUFFIXES and not path.is_symlink() and name not in ("uv.lock", ".git"):
                yield path


def modules() -> Iterator[Path]:
    """Return every Python module."""
    return (path for path in text_files() if path.suffix == ".py")
