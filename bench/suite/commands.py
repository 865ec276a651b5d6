"""Run lazylayer's commands with the settings that this user needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from lazylayer_testing.servers.process import run

__all__ = ["lazylayer"]


def lazylayer(*arguments: str | Path, settings: Mapping[str, str] | None = None, seconds: float = 600.0) -> str:
    """Run `lazylayer` and return its output. Raises ServerError with the output if it fails."""
    values = {} if os.geteuid() == 0 else {"mount.allow_other": "false"}
    options = [f"--set={key}={value}" for key, value in (values | dict(settings or {})).items()]
    return run([sys.executable, "-m", "lazylayer", *options, *arguments], seconds=seconds)
