"""Mounts by hand: what files of an image may do on the machine that they are mounted on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from e2e.command_line import CommandLine
from lazylayer.api.mounting import Missing
from lazylayer.program import Program

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(60)]

FLAGS = os.ST_NOSUID | os.ST_NODEV


@pytest.fixture(params=["frontend_erofs", "frontend_fuse"])
def command_line(request: pytest.FixtureRequest, tmp_path: Path) -> CommandLine:
    with Program.load() as program:
        if isinstance(found := program.hooks.of(request.param).probe_frontend(), Missing):
            pytest.skip(str(found))
    settings = {"mount.frontend": request.param, "background.enabled": "false"}
    if request.param == "frontend_erofs":
        settings["plugin.frontend_erofs.keeper"] = "off"
    return CommandLine(tmp_path, **settings)


@pytest.fixture
def image(tmp_path: Path) -> str:
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mknod(tree / "null", 0o020666, os.makedev(1, 3))
    CommandLine(tmp_path).run("convert", f"dir:{tree}", f"oci:{tmp_path}/image:v")
    return f"oci:{tmp_path}/image:v"


def test_set_uid_files_and_devices_do_nothing(command_line: CommandLine, image: str) -> None:
    for layer in ((), ("--layer", "0")):
        with command_line.mounted(image, *layer) as mountpoint:
            assert os.statvfs(mountpoint).f_flag & FLAGS == FLAGS
            with pytest.raises(PermissionError):
                (mountpoint / "null").read_bytes()


def test_they_work_where_that_is_wanted(command_line: CommandLine, image: str) -> None:
    with command_line.mounted(image, "--suid") as mountpoint:
        assert os.statvfs(mountpoint).f_flag & FLAGS == 0
        assert (mountpoint / "null").read_bytes() == b""
