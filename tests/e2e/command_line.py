"""`lazylayer` as an operator runs it: a process of its own, with state of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["CommandLine"]


class CommandLine:
    """Runs `lazylayer` with root and run directories below `directory` and the given settings."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.run_directory = directory / "run"
        self.settings = {"root": str(self.root), "run": str(self.run_directory), **settings}
        self.environment: dict[str, str] = {}

    def command(self, *arguments: str | Path, settings: Mapping[str, str] | None = None) -> list[str]:
        merged = {**self.settings, **(settings or {})}
        options = [word for key, value in merged.items() for word in ("--set", f"{key}={value}")]
        return [sys.executable, "-m", "lazylayer", *options, *map(str, arguments)]

    def run(
        self, *arguments: str | Path, check: bool = True, settings: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end. With `check`, a failure raises AssertionError with its output."""
        command = self.command(*arguments, settings=settings)
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, capture_output=True, timeout=120, check=False, env=environment)
        if check and done.returncode:
            raise AssertionError(f"{command}: exit status {done.returncode}\n{done.stderr.decode(errors='replace')}")
        return done

    def status(self) -> list[dict[str, Any]]:
        """Return the mounts, as `lazylayer status --json` lists them."""
        mounts: list[dict[str, Any]] = json.loads(self.run("status", "--json").stdout)["mounts"]
        return mounts

    @contextmanager
    def mounted(self, reference: str, *options: str) -> Iterator[Path]:
        """Mount `reference` at a directory inside the `with` block."""
        mountpoint = self.directory / f"mount-{len(list(self.directory.iterdir()))}"
        mountpoint.mkdir()
        self.run("mount", *options, reference, mountpoint)
        try:
            yield mountpoint
        finally:
            self.run("umount", "--force", mountpoint)
            mountpoint.rmdir()
