"""Files that are being written: swept after their process was killed, and never before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lazylayer_newfiles import NewFiles

WRITER = """
import os, sys, time
from lazylayer_newfiles import NewFiles
with NewFiles(sys.argv[1], ".new-").create() as (fd, path):
    os.write(fd, b"half")
    print(path, flush=True)
    time.sleep(60)
"""


def test_a_file_is_swept_once_its_process_is_dead(tmp_path: Path) -> None:
    files = NewFiles(str(tmp_path), ".new-")
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        path = Path(writer.stdout.readline().strip())
        files.sweep()
        assert path.read_bytes() == b"half"
        os.kill(writer.pid, signal.SIGKILL)
    files.sweep()
    assert not path.exists()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"kept")
    (tmp_path / ".new-left").write_bytes(b"left")
    NewFiles(str(tmp_path), ".new-").sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_a_file_that_is_not_renamed_is_removed(tmp_path: Path) -> None:
    files = NewFiles(str(tmp_path / "deep" / "er"))
    with files.create() as (fd, path):
        os.write(fd, b"whole")
        Path(path).replace(tmp_path / "kept")
    with pytest.raises(OSError, match="full"), files.create():
        raise OSError("full")
    assert (tmp_path / "kept").read_bytes() == b"whole"
    assert list((tmp_path / "deep" / "er").iterdir()) == []
