"""The unit of deploy/ under a real systemd, whose descriptor store keeps mounts: see scripts/under-systemd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from e2e.containerd_node import SNAPSHOTTER
from images.go_image import GoImages
from lazylayer_frontends import mountcalls
from lazylayer_frontends.mountcalls import MountFlags
from lazylayer_testing.servers.containerd import Containerd
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import ServerError, run, wait_until
from meta.repository import ROOT

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.servers,
    pytest.mark.timeout(300),
    # It installs and starts a unit, which no test may do on a machine that is not to be thrown away.
    pytest.mark.skipif("THROWAWAY_MACHINE" not in os.environ, reason="run scripts/under-systemd"),
]

UNIT = "lazylayer.service"
RUN = Path("/run/lazylayer")
SNAPSHOTS = Path("/var/lib/lazylayer/snapshotter/snapshots")

READER = """
import hashlib, os, sys
names = [os.path.join(at, each) for at, _, names in os.walk(sys.argv[1]) for each in names if each.endswith(".py")]
def digest():
    sums = hashlib.sha256()
    for name in names:
        with open(name, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            sums.update(file.read())
    return sums.hexdigest()
while True:
    try:
        print("read", digest(), flush=True)
    except OSError as error:
        print("error", error.errno, flush=True)
"""


def show(name: str) -> str:
    return run(["systemctl", "show", "--property", name, "--value", UNIT]).strip()


def stored() -> int:
    return int(show("NFileDescriptorStore"))


def keeper() -> str:
    """The setting that has systemd keep descriptors: before 254 it does not say of itself that it can."""
    return "auto" if int(run(["systemctl", "--version"]).split()[1]) >= 254 else "systemd"


@pytest.fixture
def unit(docker_registry: DockerRegistry) -> Iterator[None]:
    shutil.copy(ROOT / "deploy" / "systemd" / UNIT, "/etc/systemd/system")
    Path("/usr/local/bin/lazylayer").symlink_to(Path(sys.executable).with_name("lazylayer"))
    # What is mounted from a local image needs no daemon.
    settings = f"[resolve]\nplain_http = {json.dumps([docker_registry.host])}\n"
    settings += f'[plugin.frontend_erofs]\nlocal_images = 0\nkeeper = "{keeper()}"\n'
    Path("/etc/lazylayer").mkdir()
    Path("/etc/lazylayer/lazylayer.toml").write_text(settings)
    run(["systemctl", "daemon-reload"])
    run(["systemctl", "start", UNIT])
    yield
    run(["systemctl", "stop", UNIT])


class Reader:
    """Reads all Python files below a directory again and again."""

    def __init__(self, directory: Path, log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen([sys.executable, "-IBc", READER, directory], stdout=output)

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def wait_for_reads(self) -> None:
        before = len(self.lines())
        wait_until(lambda: len(self.lines()) > before + 1, "the reader goes on")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def restart() -> None:
    run(["systemctl", "restart", UNIT])


def crash() -> None:
    before = show("MainPID")
    run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT])
    wait_until(lambda: show("MainPID") not in ("0", before) and show("ActiveState") == "active", "it is started again")


def is_connected(containerd: Containerd) -> bool:
    try:
        containerd.ctr("snapshots", "--snapshotter", SNAPSHOTTER, "prepare", "probe")
        containerd.ctr("snapshots", "--snapshotter", SNAPSHOTTER, "remove", "probe")
    except ServerError:
        return False
    return True


def test_systemd_keeps_the_descriptors_of_mounts(
    unit: None, server_directory: Path, go_images: GoImages, python_layers: list[Path]
) -> None:
    reference = go_images.push_estargz(python_layers)
    directory = server_directory / "systemd"
    snapshotters = {SNAPSHOTTER: RUN / "snapshotter.sock"}
    with Containerd(directory, snapshotters=snapshotters) as containerd:
        pull = ["lazylayer", "pull", "--containerd", str(containerd.address), reference]
        run(pull)
        assert stored() == len(python_layers)
        mountpoint = directory / "mount"
        mountpoint.mkdir()
        layers = sorted(SNAPSHOTS.glob("*/fs"), key=lambda path: int(path.parent.name), reverse=True)
        lower = ":".join(map(str, layers))
        mountcalls.mount("overlay", str(mountpoint), "overlay", MountFlags.READ_ONLY, f"lowerdir={lower}")
        try:
            with closing(Reader(mountpoint, directory / "reader.log")) as reader:
                reader.wait_for_reads()
                for end in (restart, crash, restart, crash):
                    end()
                    reader.wait_for_reads()
                    assert stored() == len(python_layers)
                lines = reader.lines()
            assert len(set(lines)) == 1, "no read failed, and all were the same"
            assert not (RUN / "frontend_erofs" / "keeper.sock").exists(), "no keeper of ours is needed"
        finally:
            mountcalls.unmount(str(mountpoint), force=True)
        wait_until(lambda: is_connected(containerd), "containerd is connected again")
        containerd.ctr("images", "remove", "--sync", reference)
        wait_until(lambda: not list(SNAPSHOTS.iterdir()), "the layers are removed", 10)
        wait_until(lambda: stored() == 0, "nothing is kept for mounts that are gone")
