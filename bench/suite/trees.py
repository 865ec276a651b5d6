"""Build the measured trees once in the work directory: a Debian with Python and numpy, and node_modules."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from suite.cold_image import build_layers

__all__ = ["NODE_PACKAGES", "debian_tree", "node_modules_tree"]

NODE_PACKAGES = {
    "@babel/core": "7.24.5",
    "@babel/preset-env": "7.24.5",
    "core-js": "3.37.1",
    "date-fns": "3.6.0",
    "eslint": "8.57.0",
    "jest": "29.7.0",
    "lodash": "4.17.21",
    "lodash-es": "4.17.21",
    "ramda": "0.30.0",
    "rxjs": "7.8.1",
    "typescript": "5.4.5",
    "validator": "13.12.0",
    "webpack": "5.91.0",
}
"""The packages in `node_modules`; with their dependencies, about 24,000 files."""


def debian_tree(work: Path) -> Path:
    """Return a minimal Debian with python3-numpy, its layers merged. Raises MissingError."""

    def build(directory: Path) -> None:
        for layer in build_layers(work):
            subprocess.run(
                ["tar", "--extract", "--numeric-owner", "--file", layer, "--directory", directory], check=True
            )

    return _once(work / "tree-debian", build)


def node_modules_tree(work: Path) -> Path:
    """Return a directory with `node_modules` of `NODE_PACKAGES`, installed from npm's configured registry."""

    def build(directory: Path) -> None:
        (directory / "package.json").write_text(json.dumps({"private": True, "dependencies": NODE_PACKAGES}))
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run(command, cwd=directory, check=True, capture_output=True)

    return _once(work / "tree-node", build)


def _once(directory: Path, build: Callable[[Path], None]) -> Path:
    if not directory.exists():
        unfinished = directory.with_name(f"{directory.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        build(unfinished)
        unfinished.rename(directory)
    return directory
