"""Every call is answered in time: containerd holds the locks of the whole node while it waits."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lazylayer_snapshotter_containerd.api.snapshots import Info
from lazylayer_snapshotter_containerd.deadlines import Janitor
from lazylayer_snapshotter_containerd.systemd import Watchdog, probe, watchdog_seconds

FALLBACK = "containerd.io/snapshot/remote/lazylayer.fallback"
SHORT = 0.3

CALLS: dict[str, Callable[[Any], object]] = {
    "Prepare": lambda client: client.prepare("new", ""),
    "View": lambda client: client.view("new", ""),
    "Mounts": lambda client: client.mounts("active"),
    "Commit": lambda client: client.commit("committed", "active"),
    "Remove": lambda client: client.remove("active"),
    "Stat": lambda client: client.stat("active"),
    "Update": lambda client: client.update(Info("active", labels={"a": "b"})),
    "Usage": lambda client: client.usage("active"),
    "List": lambda client: client.list(),
}


@pytest.fixture
def hurried(service: Any) -> Any:
    """The service, with a deadline that passes soon."""
    service.client.prepare("active", "")
    service.stop()
    service.start(seconds=SHORT)
    return service


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_hangs_is_unavailable(hurried: Any, refused: Any, name: str) -> None:
    with hurried.snapshotter.store.transaction():  # as if the disk did not answer
        with refused("UNAVAILABLE") as caught:
            CALLS[name](hurried.client)
        assert "no answer within 0.3 s" in str(caught.value)


def test_calls_that_hang_keep_no_later_call_waiting(hurried: Any, refused: Any) -> None:
    with hurried.snapshotter.store.transaction(), ThreadPoolExecutor(40) as threads:
        for call in [threads.submit(hurried.client.stat, "active") for _ in range(40)]:
            with refused("UNAVAILABLE"):
                call.result()
    assert hurried.client.stat("active").name == "active"


def test_a_layer_may_take_longer_to_mount(hurried: Any) -> None:
    hurried.filesystem.go_on.clear()
    threading.Timer(5 * SHORT, hurried.filesystem.go_on.set).start()
    assert hurried.prepare_target("target") == "target"


def test_a_cleanup_that_takes_long_goes_on_by_itself(hurried: Any) -> None:
    hurried.client.remove("active")
    with hurried.snapshotter.store.transaction():
        hurried.client.cleanup()
        assert hurried.directory_names() != set()
    deadline = time.monotonic() + 30
    while hurried.directory_names() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert hurried.directory_names() == set()


def test_a_janitor_cleans_what_was_left_while_it_cleaned() -> None:
    go_on, running, most, times = threading.Event(), [0], [0], [0]

    def clean() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        go_on.wait(30)
        times[0] += 1
        running[0] -= 1
        if times[0] == 1:
            raise OSError("what fails is tried again")

    janitor = Janitor(clean)
    assert not janitor.ask(0.05)
    assert not janitor.ask(0.05)
    go_on.set()
    assert janitor.ask(30)
    assert times[0] >= 2
    assert most[0] == 1


def test_what_takes_long_to_measure_is_committed_and_measured_later(service: Any) -> None:
    service.stop()
    service.start(measured_within=-1.0)
    service.committed("c", "", lambda root: (root / "file").write_bytes(b"x" * 10_000))
    for _ in range(2):
        usage = service.client.usage("c")
        assert (usage.size >= 10_000, usage.inodes) == (True, 2)


def test_mounts_leave_descriptors_for_calls(service: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(400)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(others) + 50, hard))
    try:
        labels = {"containerd.io/snapshot.ref": "target"}
        assert service.client.prepare("key", "", labels), "containerd unpacks it"
        assert "descriptors are in use" in service.client.stat("key").labels[FALLBACK]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in others:
            os.close(each)


# --- systemd's watchdog ----------------------------------------------------------------------------


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket at which systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield channel


def test_systemd_is_told_as_long_as_calls_are_answered(hurried: Any, told: socket.socket) -> None:
    told.settimeout(30)
    watchdog = Watchdog(Path(hurried.address), 0.6)
    try:
        assert told.recv(100) == told.recv(100) == b"WATCHDOG=1"
        with hurried.snapshotter.store.transaction():
            told.settimeout(3 * SHORT)
            with pytest.raises(TimeoutError):
                while told.recv(100):  # what was on its way
                    pass
        told.settimeout(30)
        assert told.recv(100) == b"WATCHDOG=1"
    finally:
        watchdog.close()


def test_a_probe_says_why_it_failed(hurried: Any, tmp_path: Path) -> None:
    assert probe(Path(hurried.address), 5) == ""
    assert "UNAVAILABLE" in probe(tmp_path / "missing", 5)
    with hurried.snapshotter.store.transaction():
        assert "no answer within" in probe(Path(hurried.address), 5)


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
    ],
)
def test_a_watchdog_is_wanted_of_this_process(environment: dict[str, str], seconds: float) -> None:
    assert watchdog_seconds(environment) == seconds
