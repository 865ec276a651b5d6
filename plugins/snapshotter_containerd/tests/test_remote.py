"""Layers that are mounted: the contract of the Go stargz-snapshotter's snapshot package, and more."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lazylayer_snapshotter_containerd.restoring import Restorer, reconcile

from .conftest import CHECKED, FALLBACK, OURS, REF, REMOTE, layer_labels


def nothing(root: Path) -> None:
    del root


def upper(service: Any, number: int) -> str:
    return f"{service.root}/snapshots/{number}/fs"


def test_a_target_becomes_a_committed_snapshot(service: Any, client: Any) -> None:
    target = service.prepare_target("sha256:a", labels={"containerd.io/snapshot/x": "y"})
    (info,) = client.list(f'labels."{REF}"=={target},parent==""').values()
    assert info.kind == 3
    assert info.labels == {**OURS, REF: target, **layer_labels(target), "containerd.io/snapshot/x": "y"}
    assert client.stat(info.name) == info
    assert len(client.list()) == 1
    assert client.usage(info.name).size == 4321
    with service.mounted(client.view("view", target)) as root:
        assert (root / "sample").read_text() == "remote\n"


def test_lower_directories_come_highest_first(service: Any, client: Any) -> None:
    low = service.prepare_target("sha256:a")
    high = service.prepare_target("sha256:b", low)
    (mount,) = client.prepare("container", high)
    assert (mount.type, mount.source) == ("overlay", "overlay")
    assert mount.options[:3] == [
        f"workdir={service.root}/snapshots/3/work",
        f"upperdir={upper(service, 3)}",
        f"lowerdir={upper(service, 2)}:{upper(service, 1)}",
    ]
    assert client.mounts("container") == [mount]
    with service.mounted([mount]) as root:
        (root / "bar").write_text("hi")
    client.commit("layer", "container")
    with service.mounted(client.prepare("next", "layer")) as root:
        assert (root / "bar").read_text() == "hi"
        assert (root / "sample").read_text() == "remote\n"


@pytest.mark.parametrize("broken", [[False], [False] * 3, [True], [False, True, False]])
@pytest.mark.parametrize("overlay", [False, True])
def test_a_broken_layer_is_noticed(service: Any, client: Any, refused: Any, broken: list[bool], overlay: bool) -> None:
    parent = ""
    for number in range(len(broken)):
        parent = service.prepare_target(f"sha256:{number}", parent, labels={"layer": str(number)})
    if overlay:
        parent = service.committed("overlay", parent, nothing)
    client.prepare("container", parent)
    client.view("view", parent)
    service.filesystem.broken = {str(number) for number, bad in enumerate(broken) if bad}
    before = set(client.list())
    calls: list[Callable[[], object]] = [
        lambda: client.prepare("another", parent),
        lambda: client.view("another view", parent),
        lambda: client.mounts("container"),
        lambda: client.mounts("view"),
    ]
    for call in calls:
        if not any(broken):
            call()
            continue
        with refused("UNAVAILABLE") as error:
            call()
        assert "is broken" in error.value.details
    assert set(client.list()) >= before
    if any(broken):
        assert set(client.list()) == before


@pytest.mark.parametrize("wait", [False, True])
def test_containers_wait_for_a_prefetch_only_where_they_should(service: Any, wait: bool) -> None:
    service.stop()
    service.start(wait_for_prefetch=wait)
    name = service.prepare_target("sha256:one")
    service.client.prepare("container", name)
    assert len(service.filesystem.checked) == 1
    assert service.filesystem.waited == wait


def test_what_cannot_be_mounted_becomes_an_ordinary_snapshot(service: Any, client: Any) -> None:
    service.filesystem.broken = {"bad"}
    low = service.prepare_target("sha256:a")
    (mount,) = client.prepare("extract b", low, {REF: "sha256:b", "layer": "bad", REMOTE: "a lie"})
    assert mount.type == "overlay"
    labels = client.stat("extract b").labels
    assert labels[FALLBACK] == "layer bad is unavailable"
    assert REMOTE not in labels
    with service.mounted([mount]) as root:
        (root / "unpacked").write_text("x")
    client.commit("sha256:b", "extract b", {REF: "sha256:b"})
    with service.mounted(client.view("v", "sha256:b")) as root:
        assert {each.name for each in root.iterdir()} == {"sample", "unpacked"}


def test_a_target_that_is_there_is_not_mounted_again(service: Any, client: Any) -> None:
    service.prepare_target("sha256:a", key="first/1/x")
    service.prepare_target("sha256:a", key="second/1/y")
    assert set(client.list()) == {"sha256:a"}
    assert len(service.left_mounted()) == 1


def test_each_parent_has_its_own_target(service: Any, client: Any) -> None:
    """containerd looks for the target on the parent that it named; another namespace has another parent."""
    for namespace in ("one", "two"):
        parent = service.committed(f"{namespace}/1/sha256:a", "", nothing)
        service.prepare_target("sha256:b", parent, key=f"{namespace}/2/extract")
        found = client.list(f'labels."{REF}"==sha256:b,parent=="{parent}"')
        assert [each.kind for each in found.values()] == [3]
    assert len([each for each in client.list().values() if REMOTE in each.labels]) == 2


def test_two_who_ask_at_once_get_one(service: Any, client: Any) -> None:
    service.filesystem.go_on.clear()
    threads = [
        threading.Thread(target=service.prepare_target, args=("sha256:a",), kwargs={"key": f"{number}/1/x"})
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
        assert service.filesystem.mounting.acquire(timeout=30)
    service.filesystem.go_on.set()
    for thread in threads:
        thread.join()
    assert set(client.list()) == {"sha256:a"}
    client.cleanup()
    assert len(service.left_mounted()) == 1
    assert len(service.directory_names()) == 1


def test_a_slow_layer_delays_nobody_else(service: Any, client: Any) -> None:
    service.filesystem.go_on.clear()
    slow = threading.Thread(target=service.prepare_target, args=("sha256:slow",))
    slow.start()
    assert service.filesystem.mounting.acquire(timeout=30)
    client.prepare("another")
    assert "another" in client.list()
    client.cleanup()
    service.filesystem.go_on.set()
    slow.join()
    assert service.left_mounted() == [upper(service, 1)]


def test_a_key_that_is_removed_while_it_is_mounted_leaves_nothing(service: Any, client: Any) -> None:
    service.filesystem.go_on.clear()
    statuses = []

    def prepare() -> None:
        try:
            client.prepare("key", "", {REF: "sha256:a"})
        except Exception as error:
            statuses.append(getattr(error, "status", repr(error)))

    thread = threading.Thread(target=prepare)
    thread.start()
    assert service.filesystem.mounting.acquire(timeout=30)
    client.remove("key")
    service.filesystem.go_on.set()
    thread.join()
    assert statuses == ["NOT_FOUND"]
    assert service.left_mounted() == []
    assert service.directory_names() == set()
    assert client.list() == {}


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("clean", [False, True])
def test_a_key_that_is_used_again_while_its_first_layer_is_mounted_mixes_nothing(
    service: Any, client: Any, broken: bool, clean: bool
) -> None:
    """Prepare, Remove, Prepare of one key: each Prepare goes on with its own snapshot."""
    service.filesystem.go_on.clear()
    service.filesystem.broken = {"first"} if broken else set()
    came: dict[str, str] = {}

    def prepare(name: str, key: str, target: str) -> None:
        try:
            client.prepare(key, "", {REF: target, **layer_labels(name), "layer": name})
            came[name] = "mounts"
        except Exception as error:
            came[name] = getattr(error, "status", repr(error))

    threads = [
        threading.Thread(target=prepare, args=("first", "key", "sha256:a")),
        threading.Thread(target=prepare, args=("second", "key", "sha256:b")),
    ]
    threads[0].start()
    assert service.filesystem.mounting.acquire(timeout=30)
    client.remove("key")
    if clean:
        client.cleanup()
    threads[1].start()
    assert service.filesystem.mounting.acquire(timeout=30)
    service.filesystem.go_on.set()
    for thread in threads:
        thread.join()
    assert came == {"first": "NOT_FOUND", "second": "ALREADY_EXISTS"}
    (info,) = client.list().values()
    assert info.labels == {**OURS, REF: "sha256:b", **layer_labels("second"), "layer": "second"}
    assert service.left_mounted() == [upper(service, 2)]
    client.cleanup()
    assert service.directory_names() == {"2"}


def test_a_snapshot_is_not_committed_while_its_layer_is_mounted(service: Any, client: Any, refused: Any) -> None:
    service.filesystem.go_on.clear()
    thread = threading.Thread(target=service.prepare_target, args=("sha256:a",), kwargs={"key": "key"})
    thread.start()
    assert service.filesystem.mounting.acquire(timeout=30)
    with refused("FAILED_PRECONDITION"):
        client.commit("name", "key")
    service.filesystem.go_on.set()
    thread.join()
    assert set(client.list()) == {"sha256:a"}


def test_removal_unmounts_when_it_is_cleaned_up(service: Any, client: Any, refused: Any) -> None:
    target = service.prepare_target("sha256:a")
    client.prepare("container", target)
    with refused("FAILED_PRECONDITION"):
        client.remove(target)
    client.remove("container")
    client.remove(target)
    client.cleanup()
    assert service.left_mounted() == []
    assert service.directory_names() == set()
    assert service.filesystem.samples() == {"remote\n"}


def test_a_remote_snapshot_keeps_what_it_is_mounted_by(service: Any, client: Any) -> None:
    """And nothing else: labels that BuildKit sets for each build must not stay forever."""
    carried = {"containerd.io/snapshot/remote/lazylayer.annotation/org.example.size": "x"}
    size = {"containerd.io/snapshot/remote/lazylayer.size": "5"}
    session = {"containerd.io/snapshot/remote/stargz.session.1.abc": "s", "containerd.io/snapshot/x": "y"}
    target = service.prepare_target("sha256:a", labels={**carried, **size, **session})
    info = client.stat(target)
    assert session.items() <= info.labels.items()
    info.labels.clear()
    info.labels["mine"] = "z"
    info.labels[CHECKED] = "diff ID sha256:a lie"
    updated = client.update(info)
    kept = {REF: target, **OURS, **layer_labels(target), **carried, **size}
    assert updated.labels == {**kept, "mine": "z"}
    info.labels.clear()
    assert client.update(info, *(f"labels.{name}" for name in updated.labels)).labels == kept


def restart(service: Any) -> Restorer:
    """Restart as after a kill: the mounts of the predecessor are there, and unknown."""
    service.stop()
    service.filesystem.forget()
    service.start()
    return Restorer(service.snapshotter, reconcile(service.snapshotter))


def test_layers_are_mounted_again_after_a_restart(service: Any) -> None:
    parent = ""
    for number in range(5):
        parent = service.prepare_target(f"sha256:{number}", parent)
    restart(service).wait()
    assert sorted(service.left_mounted()) == [upper(service, number) for number in range(1, 6)]
    with service.mounted(service.client.prepare("container", parent)) as root:
        assert (root / "sample").read_text() == "remote\n"


def test_a_layer_that_cannot_be_mounted_again_is_tried_when_it_is_used(service: Any, refused: Any) -> None:
    good = service.prepare_target("sha256:good")
    bad = service.prepare_target("sha256:bad", labels={"layer": "bad"})
    service.filesystem.broken = {"bad"}
    restart(service).wait()
    service.client.prepare("on good", good)
    with refused("UNAVAILABLE"):
        service.client.prepare("on bad", bad)
    service.filesystem.broken = set()
    with service.mounted(service.client.view("on bad", bad)) as root:
        assert (root / "sample").read_text() == "remote\n"


def test_layers_are_mounted_when_they_are_needed_before_their_turn(service: Any) -> None:
    target = service.prepare_target("sha256:a")
    service.stop()
    service.filesystem.forget()
    service.start()
    reconcile(service.snapshotter)
    with service.mounted(service.client.view("view", target)) as root:
        assert (root / "sample").read_text() == "remote\n"


def test_what_a_killed_predecessor_was_at_is_put_in_order(service: Any, client: Any) -> None:
    service.prepare_target("sha256:a")
    client.prepare("container", "sha256:a")
    root: Path = service.root / "snapshots"
    with service.snapshotter.store.transaction() as transaction:
        pending = transaction.create(2, "pending", "", {REF: "sha256:b"}, pending=True)
        service.snapshotter.directories.create(pending)
    (root / "new-abcdef/fs").mkdir(parents=True)
    for name in ("99", str(pending.id)):
        (root / name / "fs").mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", service.directory / "layer", root / name / "fs"], check=True)
    restart(service).wait()
    assert set(service.client.list()) == {"sha256:a", "container"}
    assert service.directory_names() == {"1", "2"}
    assert service.left_mounted() == [upper(service, 1)]
    assert service.filesystem.samples() == {"remote\n"}


def test_nobody_uses_a_layer_that_is_still_being_mounted(service: Any, refused: Any) -> None:
    target = service.prepare_target("sha256:a", labels={"layer": "a"})
    service.filesystem.go_on.clear()
    while service.filesystem.mounting.acquire(blocking=False):
        pass
    restorer = restart(service)
    assert service.filesystem.mounting.acquire(timeout=30)
    service.filesystem.broken = {"a"}
    done = threading.Event()

    def view() -> None:
        with refused("UNAVAILABLE"):
            service.client.view("view", target)
        done.set()

    thread = threading.Thread(target=view)
    thread.start()
    service.filesystem.go_on.set()
    thread.join()
    restorer.wait()
    assert done.is_set()


def test_a_target_can_be_prepared_on_a_layer_that_is_not_mounted_yet(service: Any, client: Any, refused: Any) -> None:
    low = service.prepare_target("sha256:a", labels={"layer": "low"})
    service.stop()
    service.filesystem.forget()
    service.start()
    reconcile(service.snapshotter)
    service.filesystem.broken = {"low", "high"}
    service.prepare_target("sha256:b", low, labels={"layer": "other"})
    with refused("UNAVAILABLE"):
        service.client.prepare("extract", low, {REF: "sha256:c", "layer": "high"})
    assert set(service.client.list()) == {"sha256:a", "sha256:b"}
    assert service.directory_names() == {"1", "2"}
