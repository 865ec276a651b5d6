"""Mounts that come and go while somebody looks."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from lazylayer.linux.mounttable import MountTable

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def mount(directory: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", directory], check=True)


def umount(directory: Path) -> None:
    subprocess.run(["umount", directory], check=True)


def test_what_is_on_top_is_known_at_once(tmp_path: Path) -> None:
    table = MountTable()
    target = str(tmp_path)
    assert table.at(target) is None
    mount(tmp_path)
    lower = table.at(target)
    mount(tmp_path)
    upper = table.at(target)
    assert lower is not None and upper is not None
    assert lower.kind == upper.kind == "tmpfs" and lower.device != upper.device
    umount(tmp_path)
    assert table.at(target) == lower
    umount(tmp_path)
    assert table.at(target) is None


def test_who_waits_hears_of_the_end(tmp_path: Path) -> None:
    table = MountTable()
    target = str(tmp_path)
    mount(tmp_path)
    there = table.at(target)
    assert there is not None
    assert not table.wait_gone(target, there.device, 0)
    assert not table.wait_gone(target, there.device, 0.05)
    answers: list[bool] = []
    waiters = [
        threading.Thread(target=lambda: answers.append(table.wait_gone(target, there.device, None))) for _ in range(3)
    ]
    for waiter in waiters:
        waiter.start()
    other = tmp_path.with_name("other")
    other.mkdir()
    mount(other)
    umount(other)
    assert answers == []
    umount(tmp_path)
    for waiter in waiters:
        waiter.join(30)
    assert answers == [True, True, True]
    assert table.wait_gone(target, there.device, 0)
