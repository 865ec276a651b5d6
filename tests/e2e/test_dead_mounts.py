"""Mounts whose process has died are unmounted by the command line, with all that was kept for them."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from plugins.frontend_erofs.tests.keepers import Keepers

from e2e.command_line import CommandLine
from lazylayer.api.mounting import Missing
from lazylayer.linux import mounttable
from lazylayer.program import Program
from lazylayer_frontend_erofs.writer import write_metadata
from lazylayer_frontends import mountcalls
from lazylayer_testing.frontend.trees import access_tree
from lazylayer_testing.servers.process import wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(60)]

READ = """
import sys
print("reads", flush=True)
try:
    open(sys.argv[1], "rb").read()
except OSError as error:
    print(error.errno, flush=True)
"""


@pytest.fixture(params=["frontend_erofs", "frontend_fuse"])
def frontend(request: pytest.FixtureRequest) -> str:
    frontend = str(request.param)
    with Program.load() as program:
        if isinstance(found := program.hooks.of(frontend).probe_frontend(), Missing):
            pytest.skip(str(found))
    return frontend


@pytest.fixture
def command_line(tmp_path: Path, frontend: str) -> Iterator[CommandLine]:
    settings = {"mount.frontend": frontend, "background.enabled": "false"}
    if frontend == "frontend_erofs":
        # Longer than any test may take.
        settings |= {"plugin.frontend_erofs.keeper": "process", "plugin.frontend_erofs.keeper_timeout": "100000.0"}
    with closing(Keepers(tmp_path / "run" / "frontend_erofs")):
        yield CommandLine(tmp_path, **settings)


@pytest.fixture
def image(tmp_path: Path) -> str:
    return make_image(tmp_path, "tree")


@pytest.fixture
def another_image(tmp_path: Path) -> str:
    return make_image(tmp_path, "another")


def make_image(directory: Path, name: str) -> str:
    tree = directory / name
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(1_000_000))
    CommandLine(directory).run("convert", f"dir:{tree}", f"oci:{directory}/{name}-image:v")
    return f"oci:{directory}/{name}-image:v"


def test_reads_under_way_of_a_dead_mount_fail_when_it_is_unmounted(
    command_line: CommandLine, image: str, tmp_path: Path
) -> None:
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    command_line.run("mount", image, mountpoint)
    (process,) = (command_line.run_directory / "processes").iterdir()
    os.kill(int(process.name), signal.SIGSTOP)
    command = [sys.executable, "-IBc", READ, str(mountpoint / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reads\n"
        wait_until(lambda: is_waiting(reader.pid), "the read waits")
        os.kill(int(process.name), signal.SIGKILL)
        wait_until(lambda: not process_is_there(int(process.name)), "the process is gone")
        command_line.run("umount", mountpoint)
        assert reader.stdout.read() in (f"{errno.EIO}\n", f"{errno.ENOTCONN}\n", f"{errno.ECONNABORTED}\n")
    assert mounttable.mount_at(str(mountpoint)) is None
    assert list((command_line.run_directory / "frontend_erofs").rglob("*.json")) == []
    with command_line.mounted(image) as mounted:
        assert (mounted / "file").read_bytes() == (tmp_path / "tree" / "file").read_bytes()


def kill_its_process(command_line: CommandLine) -> None:
    (directory,) = (command_line.run_directory / "processes").iterdir()
    os.kill(int(directory.name), signal.SIGKILL)
    wait_until(lambda: not process_is_there(int(directory.name)), "the process is gone")


def test_dead_mounts_are_shown_and_replaced(
    command_line: CommandLine, frontend: str, image: str, tmp_path: Path
) -> None:
    mountpoint = tmp_path / "mount here"
    mountpoint.mkdir()
    command_line.run("mount", image, mountpoint)
    kill_its_process(command_line)
    for _ in range(2):
        assert command_line.run("status").stdout.decode().splitlines() == [
            f"{mountpoint}  {image}  ({frontend})",
            f"  dead: its process has ended; `lazylayer umount '{mountpoint}'` removes it, "
            "`lazylayer mount` there replaces it",
        ]
    shown = json.loads(command_line.run("status", "--json").stdout)
    assert shown == {
        "mounts": [],
        "dead": [{"mountpoint": str(mountpoint), "reference": image, "frontend": frontend}],
    }
    command_line.run("mount", image, mountpoint)
    assert (mountpoint / "file").read_bytes() == (tmp_path / "tree" / "file").read_bytes()
    assert [each["mountpoint"] for each in command_line.status()] == [str(mountpoint)]
    kill_its_process(command_line)
    command_line.run("umount", mountpoint)
    assert command_line.run("status").stdout == b"nothing is mounted\n"
    assert list((command_line.run_directory / "processes").iterdir()) == []


@pytest.mark.parametrize("frontend", ["frontend_fuse"], indirect=True)
def test_a_mount_that_fails_leaves_no_directory(command_line: CommandLine, tmp_path: Path) -> None:
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    assert command_line.run("mount", f"oci:{tmp_path}/none:v", mountpoint, check=False).returncode == 1
    assert list((command_line.run_directory / "processes").iterdir()) == []


@pytest.mark.parametrize("frontend", ["frontend_fuse"], indirect=True)
def test_files_are_covered_only_if_that_is_wanted(command_line: CommandLine, image: str, tmp_path: Path) -> None:
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    (mountpoint / "precious").touch()
    done = command_line.run("mount", image, mountpoint, check=False)
    assert done.returncode == 1
    assert done.stderr.decode() == (
        f"lazylayer: error: {mountpoint} is not empty: a mount would hide its files; "
        "choose an empty directory, or cover it with --nonempty\n"
    )
    command_line.run("mount", "--nonempty", image, mountpoint)
    assert [each.name for each in mountpoint.iterdir()] == ["file"]
    command_line.run("umount", mountpoint)


def test_what_is_not_ours_stays(command_line: CommandLine, tmp_path: Path) -> None:
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    done = command_line.run("umount", mountpoint, check=False)
    assert f"{mountpoint}: lazylayer has nothing mounted there".encode() in done.stderr
    mountcalls.mount("none", str(mountpoint), "tmpfs", mountcalls.MountFlags(0), "")
    try:
        done = command_line.run("umount", mountpoint, check=False)
        assert b"a file system of the type tmpfs is" in done.stderr
        assert mounttable.mount_at(str(mountpoint)) is not None
    finally:
        mountcalls.unmount(str(mountpoint))


def test_a_living_mount_is_neither_covered_nor_detached(
    command_line: CommandLine, image: str, another_image: str, tmp_path: Path
) -> None:
    with command_line.mounted(image) as mountpoint, keeping_busy(mountpoint):
        device = mounttable.mount_at(str(mountpoint))
        for reference in (image, another_image):
            done = command_line.run("mount", reference, mountpoint, check=False)
            assert done.returncode
            assert f"{mountpoint} is already mounted".encode() in done.stderr
        assert mounttable.mount_at(str(mountpoint)) == device
        assert (mountpoint / "file").read_bytes() == (tmp_path / "tree" / "file").read_bytes()


def test_a_busy_mount_whose_process_is_stopped_is_not_detached(command_line: CommandLine, image: str) -> None:
    with command_line.mounted(image) as mountpoint, keeping_busy(mountpoint):
        device = mounttable.mount_at(str(mountpoint))
        (process,) = (command_line.run_directory / "processes").iterdir()
        os.kill(int(process.name), signal.SIGSTOP)
        try:
            done = command_line.run("umount", mountpoint, check=False)
            assert done.returncode
            assert b"its process lives but does not answer" in done.stderr
            assert mounttable.mount_at(str(mountpoint)) == device
        finally:
            os.kill(int(process.name), signal.SIGCONT)


def test_mounting_over_dead_mounts_stacks_nothing(
    command_line: CommandLine, image: str, another_image: str, tmp_path: Path
) -> None:
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    for reference in (image, another_image, another_image, image):
        command_line.run("mount", reference, mountpoint)
        (process,) = (command_line.run_directory / "processes").iterdir()
        os.kill(int(process.name), signal.SIGKILL)
        wait_until(lambda pid=int(process.name): not process_is_there(pid), "the process is gone")  # type: ignore[misc]
    command_line.run("mount", image, mountpoint)
    assert (mountpoint / "file").read_bytes() == (tmp_path / "tree" / "file").read_bytes()
    command_line.run("umount", mountpoint)
    assert mounttable.mount_at(str(mountpoint)) is None


def test_a_foreign_erofs_stays(command_line: CommandLine, frontend: str, tmp_path: Path) -> None:
    if frontend != "frontend_erofs":
        pytest.skip("there is no EROFS that it might take for its own")
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    file = tmp_path / "theirs.erofs"
    file.write_bytes(write_metadata(access_tree(b"").tree).image)
    mountcalls.mount(str(file), str(mountpoint), "erofs", mountcalls.MountFlags.READ_ONLY, "")
    try:
        for options in ((), ("--force",)):
            done = command_line.run("umount", *options, mountpoint, check=False)
            assert b"a file system of the type erofs is" in done.stderr
            assert mounttable.mount_at(str(mountpoint)) is not None
    finally:
        mountcalls.unmount(str(mountpoint))


@contextmanager
def keeping_busy(mountpoint: Path) -> Iterator[None]:
    """Keep a mount in use by a process in it: an open file would wait for the mount's server when it is closed."""
    with subprocess.Popen(["sleep", "1000"], cwd=mountpoint) as process:
        try:
            yield
        finally:
            process.kill()


def is_waiting(pid: int) -> bool:
    """Whether a process waits for a page, or for a FUSE server."""
    return state_of(pid) == "D" or Path(f"/proc/{pid}/wchan").read_text() == "request_wait_answer"


def process_is_there(pid: int) -> bool:
    return state_of(pid) not in ("", "Z", "X")


def state_of(pid: int) -> str:
    """One letter, as in proc_pid_stat(5); empty for no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return ""
