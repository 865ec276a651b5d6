"""A process that is killed while it waits, in the kernel, for an answer that it should give itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazylayer_frontend_erofs.probe import what_is_missing

from .keepers import WAIT, Keepers

CONNECTIONS = Path("/sys/fs/fuse/connections")
PROGRAM = """
import os, sys, threading
from lazylayer.api.mounting import MountOptions
from lazylayer.api.settings import Settings
from lazylayer_testing.frontend import trees as frontend_tree
from lazylayer_frontend_erofs import FrontendErofs, image
from lazylayer_frontend_erofs.options import Options

def read(self, offset, size):
    os.write(1, b"asked\\n")
    threading.Event().wait()

image.Image.read = read
mountpoints, run = sys.argv[1:-1], sys.argv[-1]
plugin = FrontendErofs()
plugin.lazylayer_configure(Settings(root=run, run=run), Options())
for mountpoint in mountpoints:
    arguments = frontend_tree.odd_tree(), mountpoint, MountOptions()
    threading.Thread(target=plugin.lazylayer_mount_tree, args=arguments).start()
"""


@pytest.fixture
def connections() -> Iterator[None]:
    """Ends what a process that cannot be ended waits for."""
    if missing := what_is_missing():
        pytest.skip(str(missing))
    before = set(CONNECTIONS.iterdir())
    yield
    for connection in set(CONNECTIONS.iterdir()) - before:
        (connection / "abort").write_text("1")


@pytest.mark.fuse
@pytest.mark.parametrize("mounts", [1, 3])
def test_it_ends_at_once(connections: None, tmp_path: Path, mounts: int) -> None:
    mountpoints = [tmp_path / f"mount-{number}" for number in range(mounts)]
    for each in mountpoints:
        each.mkdir()
    command = [sys.executable, "-c", PROGRAM, *map(str, mountpoints), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = [process.stdout.readline() for _ in mountpoints]
        finally:
            process.kill()
        process.wait(WAIT)
    assert said == ["asked\n"] * mounts
    Keepers(tmp_path / "run" / "frontend_erofs").close()
