"""Layers shown by the FUSE frontend, with their state, from `Filesystem.mount` to the end."""

from __future__ import annotations

import errno
import json
import os
import random
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lazylayer.api.settings import BackgroundSettings, CacheSettings, MountSettings, PrefetchSettings, Settings
from lazylayer.errors import MountError, NotMountedError, UnavailableError
from lazylayer.linux import mounttable
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.plugin.registry import Plugins
from lazylayer_frontend_fuse import FrontendFuse
from lazylayer_state_file import FAILURES, StateFile
from lazylayer_testing.frontend.client import NOBODY_UID, ask
from lazylayer_testing.synthetic import MemoryPlugin, SyntheticLayer

pytestmark = pytest.mark.fuse

FILES = {
    b"small": b"small",
    b"large": random.Random(3).randbytes(300_000),
    b"other": random.Random(4).randbytes(90_000),
}


class Machine:
    """A file system over one layer in memory, with the real frontend and state files."""

    def __init__(self, directory: Path) -> None:
        self.layer = SyntheticLayer(FILES, chunk_size=10_000)
        self.plugin = MemoryPlugin([self.layer])
        self.source = self.plugin.sources[self.layer.digest]
        self.run = directory / "run"
        settings = Settings(
            run=str(self.run),
            background=BackgroundSettings(enabled=False),
            prefetch=PrefetchSettings(enabled=False),
            cache=CacheSettings(chunks="memory", ranges="memory"),
            mount=MountSettings(frontend="frontend_fuse"),
        )
        plugins = Plugins((), {})
        plugins.configure(settings)
        brought = {"memory": self.plugin, "frontend_fuse": FrontendFuse(), "state_file": StateFile()}
        for name, plugin in brought.items():
            plugins.add(name, plugin)
        program: Any = SimpleNamespace(hooks=plugins.hooks(), settings=settings)
        self.filesystem = Filesystem(program)
        self.mountpoint = str(directory / "mount")
        os.mkdir(self.mountpoint)

    def mount(self) -> None:
        self.filesystem.mount(self.mountpoint, self.plugin.labels(0))

    def kinds(self) -> list[str]:
        return [event.kind for event in self.plugin.events]

    def state(self) -> dict[str, Any]:
        path = Path(self.mountpoint, ".stargz-snapshotter", f"{self.layer.digest}.json")
        state: dict[str, Any] = json.loads(path.read_text())
        return state


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts that all users see")
    for each in (tmp_path, *tmp_path.parents):
        if each.stat().st_mode & stat.S_ISVTX:
            break  # the directory for temporary files
        each.chmod(each.stat().st_mode | stat.S_IXOTH)
    machine = Machine(tmp_path)
    yield machine
    machine.filesystem.close()
    assert mounttable.mount_at(machine.mountpoint) is None


@pytest.mark.seed(15)
def test_files_are_read_through_the_layer(machine: Machine) -> None:
    machine.mount()
    assert {
        os.fsencode(name): Path(machine.mountpoint, name).read_bytes() for name in os.listdir(machine.mountpoint)
    } == FILES


@pytest.mark.seed(14)
def test_others_may_read_what_the_modes_allow(machine: Machine) -> None:
    entry = machine.layer.entries[b"other"]
    entry.mode = stat.S_IFREG | 0o640
    entry.gid = 77
    machine.mount()
    assert ask("read", f"{machine.mountpoint}/small", uid=NOBODY_UID) == "small"
    assert ask("access", f"{machine.mountpoint}/other", uid=NOBODY_UID) == [True, False, False]
    assert ask("access", f"{machine.mountpoint}/other", uid=NOBODY_UID, groups=(77,)) == [True, True, False]
    assert ask("access", f"{machine.mountpoint}/other") == [True, True, False]


@pytest.mark.seed(15)
@pytest.mark.seed(16)
def test_a_failing_read_is_eio_and_is_in_the_state_files(machine: Machine) -> None:
    machine.mount()
    before = machine.state()
    assert "error" not in before
    machine.source.fail = lambda _: UnavailableError("the network is away")
    with pytest.raises(OSError) as raised:
        Path(machine.mountpoint, "large").read_bytes()
    assert raised.value.errno == errno.EIO
    assert "the network is away" in machine.state()["error"]
    journal = (machine.run / FAILURES).read_text()
    assert "the network is away" in journal
    machine.source.fail = lambda _: None
    assert Path(machine.mountpoint, "large").read_bytes() == FILES[b"large"]


@pytest.mark.seed(16)
def test_state_is_updated_at_each_read(machine: Machine) -> None:
    machine.mount()
    fetched = [machine.state()["fetchedSize"]]
    for name in FILES:
        Path(machine.mountpoint, os.fsdecode(name)).read_bytes()
        fetched.append(machine.state()["fetchedSize"])
    assert fetched == sorted(fetched)
    assert fetched[0] < fetched[-1] <= machine.state()["size"] == len(machine.layer.data)
    directory = f"{machine.mountpoint}/.stargz-snapshotter"
    assert ask("listed", directory, uid=NOBODY_UID) == "EACCES"
    assert ".stargz-snapshotter" not in os.listdir(machine.mountpoint)
    assert stat.filemode(os.lstat(directory).st_mode) == "dr-x------"
    (file,) = os.listdir(directory)
    assert stat.filemode(os.lstat(f"{directory}/{file}").st_mode) == "-r--------"


@pytest.mark.seed(17)
def test_unmounting_unregisters(machine: Machine) -> None:
    machine.mount()
    assert [each.mountpoint for each in machine.filesystem.mounts()] == [machine.mountpoint]
    machine.filesystem.unmount(machine.mountpoint)
    assert machine.filesystem.mounts() == ()
    assert machine.kinds()[-1] == "unmounted"
    with pytest.raises(NotMountedError):
        machine.filesystem.check(machine.mountpoint)
    machine.mount()


@pytest.mark.seed(17)
def test_unmounting_by_umount_unregisters(machine: Machine) -> None:
    machine.mount()
    subprocess.run(["umount", machine.mountpoint], check=True)
    assert machine.filesystem.wait(machine.mountpoint, 60)
    assert machine.filesystem.mounts() == ()
    assert machine.kinds().count("unmounted") == 1
    with pytest.raises(NotMountedError):
        machine.filesystem.check(machine.mountpoint)
    machine.mount()
    assert Path(machine.mountpoint, "small").read_bytes() == b"small"


@pytest.mark.seed(17)
def test_a_mount_in_use_stays_registered(machine: Machine) -> None:
    machine.mount()
    with Path(machine.mountpoint, "small").open("rb"):
        with pytest.raises(MountError, match="in use"):
            machine.filesystem.unmount(machine.mountpoint)
        assert [each.mountpoint for each in machine.filesystem.mounts()] == [machine.mountpoint]
        assert Path(machine.mountpoint, "large").read_bytes() == FILES[b"large"]


def test_state_files_of_the_run_directory_go_with_the_program(machine: Machine) -> None:
    machine.mount()
    (path,) = machine.run.glob("processes/*/state/*.json")
    assert json.loads(path.read_text())["digest"] == machine.layer.digest
    machine.filesystem.close()
    assert list(machine.run.glob("processes/*/state/*")) == []
