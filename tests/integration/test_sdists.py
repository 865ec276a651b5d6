"""`scripts/check-sdists` runs a library's tests from its source archive; by hand it runs those of all distributions."""

from __future__ import annotations

import re
import subprocess

from meta.repository import ROOT

CHECK_SDISTS = ROOT / "scripts" / "check-sdists"


def test_library_is_tested_from_its_source_archive() -> None:
    done = subprocess.run([CHECK_SDISTS, "logins"], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"logins: \d+ passed", done.stdout)


def test_unknown_name_is_an_error() -> None:
    done = subprocess.run([CHECK_SDISTS, "no_such_plugin"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no distribution with tests in a folder named no_such_plugin" in done.stderr
