"""The common half of a frontend's mounts, over tmpfs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazylayer.errors import MountError
from lazylayer.linux.mounttable import is_mounted
from lazylayer_frontends import mountcalls
from lazylayer_frontends.frontendmount import FrontendMount

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def mount_tmpfs(mountpoint: str) -> None:
    mountcalls.mount("none", mountpoint, "tmpfs", mountcalls.MountFlags.NO_SUID, "size=1m")


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[str]:
    mount_tmpfs(str(tmp_path))
    yield str(tmp_path)
    while is_mounted(str(tmp_path)):
        mountcalls.unmount(str(tmp_path), force=True)


class Recorded(FrontendMount):
    frontend = "recorded"

    def __init__(self, mountpoint: str) -> None:
        super().__init__(mountpoint)
        self.calls: list[str] = []

    def fail_reads(self) -> None:
        self.calls.append("fail_reads")

    def forget(self) -> None:
        self.calls.append("forget")

    def wait_ended(self) -> None:
        self.calls.append("wait_ended")


def test_unmounts_once_and_then_waits_for_the_server(mountpoint: str) -> None:
    mount = Recorded(mountpoint)
    assert not mount.wait(0)
    mount.unmount()
    assert not is_mounted(mountpoint)
    assert mount.is_removed and mount.wait(0)
    assert mount.calls == ["forget", "wait_ended"]
    mount_tmpfs(mountpoint)  # another's
    mount.unmount()
    assert is_mounted(mountpoint)


def test_a_mount_in_use_stays_unless_forced(mountpoint: str) -> None:
    mount = Recorded(mountpoint)
    with (Path(mountpoint) / "file").open("wb"):
        with pytest.raises(MountError, match=r"is in use; end what uses it \(fuser -vm"):
            mount.unmount()
        assert is_mounted(mountpoint) and mount.calls == []
        mount.unmount(force=True)
    assert not is_mounted(mountpoint)
    assert mount.calls == ["fail_reads", "forget"]


def test_a_mount_under_another_is_left_alone(mountpoint: str) -> None:
    mount = Recorded(mountpoint)
    mount_tmpfs(mountpoint)
    with pytest.raises(MountError, match=r"another mount \(tmpfs\) covers it; unmount that first"):
        mount.unmount(force=True)
    mountcalls.unmount(mountpoint)
    mount.unmount()
    assert not is_mounted(mountpoint)


def test_a_mount_that_another_program_removed_is_no_failure(mountpoint: str) -> None:
    mount = Recorded(mountpoint)
    mountcalls.unmount(mountpoint)
    assert mount.wait(5)
    mount.unmount()
    assert mount.is_removed
