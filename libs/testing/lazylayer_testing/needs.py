"""Marks that skip a test, and say why, on a machine that lacks what the test needs.

@needs_programs("runc", "skopeo")
def test_container_starts() -> None: ...
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

__all__ = ["needs_fuse", "needs_programs", "needs_root"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: devices, owners and mounts")
"""Skip unless the test runs as root."""

needs_fuse = pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse")
"""Skip unless FUSE is available to this user."""

_SYSTEM_FOLDERS = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))


def needs_programs(*names: str | Path) -> pytest.MarkDecorator:
    """Return a mark that skips a test unless all of these programs are installed."""
    path = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{_SYSTEM_FOLDERS}"
    missing = [str(name) for name in names if shutil.which(name, path=path) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
