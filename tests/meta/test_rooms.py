"""The drawing of the rooms is what the code has."""

from __future__ import annotations

import subprocess
import sys

from meta.repository import ROOT


def test_the_drawing_is_the_code() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "draw-rooms"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
