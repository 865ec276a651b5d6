"""The behaviours of containerd's SnapshotterSuite (core/snapshots/testsuite), over gRPC."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

COMMITTED, ACTIVE, VIEW = 3, 2, 1


def write(path: Path, content: str, mode: int = 0o644) -> None:
    path.write_text(content)
    path.chmod(mode)


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def nothing(root: Path) -> None:
    del root


def apply_all(service: Any, *changes: Callable[[Path], None]) -> None:
    """Each change becomes a snapshot on the one before; what is shown is always what a plain directory has."""
    flat = service.directory / "flat"
    flat.mkdir(mode=0o755)
    parent = ""
    for number, change in enumerate(changes):
        with service.mounted(service.client.prepare(f"active {number}", parent)) as root:
            change(root)
            change(flat)
            assert same(flat, root)
        parent = f"committed {number}"
        service.client.commit(parent, f"active {number}")
    with service.mounted(service.client.view("view", parent)) as root:
        assert same(flat, root)


def same(first: Path, second: Path) -> bool:
    """Names, kinds, modes, owners and contents; times of directories are overlayfs's own."""

    def facts(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
        found = {}
        for path in sorted(root.rglob("*")):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, status.st_gid, content)
        return found

    assert facts(first) == facts(second)
    return True


def test_basic(service: Any, client: Any, refused: Any) -> None:
    def first(root: Path) -> None:
        write(root / "foo", "foo\n", 0o777)
        (root / "a/b/c").mkdir(parents=True)

    def second(root: Path) -> None:
        write(root / "bar", "bar\n", 0o777)
        write(root / "foo", "bar\n", 0o777)
        shutil.rmtree(root / "a/b")

    service.committed("c1", "", first)
    assert (client.stat("c1").parent, client.stat("c1").kind) == ("", COMMITTED)
    with refused("NOT_FOUND"):
        client.stat("c1 preparing")
    with service.mounted(client.prepare("next", "c1")) as root:
        assert (root / "foo").read_text() == "foo\n"
        second(root)
    assert (client.stat("next").parent, client.stat("next").kind) == ("c1", ACTIVE)
    client.commit("c2", "next")
    assert (client.stat("c2").parent, client.stat("c2").kind) == ("c1", COMMITTED)
    assert client.list() == {"c1": client.stat("c1"), "c2": client.stat("c2")}
    with service.mounted(client.view("v", "c2")) as root:
        assert names(root) == ["a", "bar", "foo"]
        assert names(root / "a") == []
    client.remove("v")
    with refused("FAILED_PRECONDITION"):
        client.remove("c1")
    client.remove("c2")
    client.remove("c1")
    client.cleanup()
    assert service.directory_names() == set()


def test_keys_are_unique(client: Any, service: Any, refused: Any) -> None:
    service.committed("a", "", nothing)
    client.prepare("p", "a")
    client.view("v", "a")
    for key in ("p", "v", "a"):
        with refused("ALREADY_EXISTS"):
            client.prepare(key, "a")
        with refused("ALREADY_EXISTS"):
            client.view(key, "a")
    with refused("ALREADY_EXISTS"):
        client.commit("a", "p")
    assert client.stat("p").kind == ACTIVE


def test_what_makes_no_sense_is_refused(client: Any, service: Any, refused: Any) -> None:
    client.prepare("active")
    service.committed("a", "", nothing)
    refusals: dict[str, list[Callable[[], object]]] = {
        "NOT_FOUND": [
            lambda: client.prepare("x", "unknown"),
            lambda: client.mounts("x"),
            lambda: client.remove("x"),
            lambda: client.usage("x"),
            lambda: client.commit("y", "x"),
        ],
        "INVALID_ARGUMENT": [lambda: client.prepare("x", "active"), lambda: client.prepare("")],
        "FAILED_PRECONDITION": [lambda: client.mounts("a"), lambda: client.commit("b", "a")],
    }
    for status, calls in refusals.items():
        for each in calls:
            with refused(status):
                each()
    assert set(client.list()) == {"active", "a"}


def test_a_snapshot_without_parent_gets_one_when_it_is_committed(client: Any, service: Any, refused: Any) -> None:
    service.committed("a", "", nothing)
    client.prepare("x")
    client.commit("b", "x", parent="a")
    assert client.stat("b").parent == "a"
    client.prepare("y", "b")
    with refused("INVALID_ARGUMENT"):
        client.commit("c", "y", parent="a")


def make_base(client: Any) -> dict[str, tuple[int, str]]:
    client.prepare("c1-a")
    client.commit("c1", "c1-a")
    client.prepare("c2-a", "c1")
    client.commit("c2", "c2-a")
    client.prepare("a1", "c2")
    client.prepare("a2")
    client.view("v1", "c2")
    client.view("v2")
    return {
        "c1": (COMMITTED, ""),
        "c2": (COMMITTED, "c1"),
        "a1": (ACTIVE, "c2"),
        "a2": (ACTIVE, ""),
        "v1": (VIEW, "c2"),
        "v2": (VIEW, ""),
    }


def test_update(client: Any, refused: Any) -> None:
    before = time.time()
    for name, (kind, parent) in make_base(client).items():
        info = client.stat(name)
        assert (info.kind, info.parent, info.created_at) == (kind, parent, info.updated_at)
        assert int(before) <= info.created_at.seconds <= time.time()
        wanted = {"l1": "v1", "l2": "v2", "l3": "v3"}
        updated = client.update(msgspec.structs.replace(info, parent="other", labels=wanted))
        assert (updated.labels, updated.parent, updated.kind) == (wanted, parent, kind)
        assert updated.created_at == info.created_at
        assert updated.updated_at != info.updated_at
        some = msgspec.structs.replace(info, labels={"l1": "updated", "l4": "v4"})
        assert client.update(some, "labels.l1", "labels.l2").labels == {"l1": "updated", "l3": "v3"}
        assert client.update(some, "labels").labels == {"l1": "updated", "l4": "v4"}
        with refused("INVALID_ARGUMENT"):
            client.update(some, "parent")
        assert client.stat(name).labels == {"l1": "updated", "l4": "v4"}


def test_a_removed_key_can_be_used_again(client: Any) -> None:
    client.prepare("committed-a")
    client.commit("committed-1", "committed-a")
    client.prepare("reuse-1", "committed-1")
    client.remove("reuse-1")
    client.view("reuse-1", "committed-1")
    client.remove("reuse-1")
    client.prepare("reuse-1")
    client.remove("committed-1")
    client.commit("committed-1", "reuse-1")


def test_what_has_children_stays(client: Any, refused: Any) -> None:
    client.prepare("base-a")
    client.commit("base", "base-a")
    client.prepare("middle-a", "base")
    client.commit("middle", "middle-a")
    client.prepare("top", "middle")
    with refused("FAILED_PRECONDITION"):
        client.remove("middle")
    for key in ("top", "middle", "base"):
        client.remove(key)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], "a-np p a v p-wl a-wl v-wl a-np-wl"),
        (['labels."containerd.io/gc.root"==check-walk'], "a-np p a v p-wl a-wl v-wl a-np-wl"),
        (['kind==active,labels."containerd.io/gc.root"==check-walk'], "a-np a a-wl a-np-wl"),
        (["kind==view"], "v v-wl"),
        (["kind==committed"], "p p-wl"),
        (["name==p", "name==a-np-wl"], "p a-np-wl"),
        (["name==a-wl,labels.l"], "a-wl"),
        (["parent==p"], "a v"),
        (['parent==""'], "a-np p p-wl a-np-wl"),
        (['parent!=""'], "a v a-wl v-wl"),
        (["labels.l"], "p-wl a-wl v-wl a-np-wl"),
        (["labels.l==2"], "a-wl a-np-wl"),
        (["name~=^a-", "name~=/^v$/"], "a-np a-wl a-np-wl v"),
        (["nothing"], ""),
    ],
)
def test_list_filters(service: Any, client: Any, filters: list[str], expected: str) -> None:
    root = {"containerd.io/gc.root": "check-walk"}
    client.prepare("a-np", labels=root)
    client.prepare("p-tmp")
    client.commit("p", "p-tmp", root)
    client.prepare("a", "p", root)
    client.view("v", "p", root)
    client.prepare("p-wl-tmp")
    client.commit("p-wl", "p-wl-tmp", {**root, "l": "1"})
    client.prepare("a-wl", "p-wl", {**root, "l": "2"})
    client.view("v-wl", "p-wl", {**root, "l": "3"})
    client.prepare("a-np-wl", labels={**root, "l": "2"})
    assert set(client.list(*filters)) == set(expected.split())


@pytest.mark.parametrize("text", ["name==", 'name=="x', "name=x", "name==a b", ",", "name~=[", "=="])
def test_bad_filters_are_refused(client: Any, refused: Any, text: str) -> None:
    with refused("INVALID_ARGUMENT"):
        client.list(text)


def test_a_layer_changes_files(service: Any) -> None:
    def first(root: Path) -> None:
        (root / "etc").mkdir(mode=0o700)
        write(root / "etc/hosts", "mydomain 10.0.0.1")
        write(root / "etc/profile", "PATH=/usr/bin")

    def second(root: Path) -> None:
        write(root / "etc/hosts", "mydomain 10.0.0.2")
        write(root / "etc/profile", "PATH=/usr/bin", 0o666)
        (root / "root").mkdir(mode=0o700)

    apply_all(service, first, second)


def test_a_directory_is_replaced(service: Any) -> None:
    def first(root: Path) -> None:
        (root / "lib").mkdir(mode=0o700)
        write(root / "lib/hidden", "")
        write(root / "foobar", "x")

    def second(root: Path) -> None:
        shutil.rmtree(root / "lib")
        (root / "lib").mkdir(mode=0o700)
        write(root / "lib/not-hidden", "")
        (root / "foobar").unlink()

    apply_all(service, first, second, lambda root: write(root / "lib/newfile", ""), nothing)


def test_owners_change(service: Any) -> None:
    def first(root: Path) -> None:
        for name in ("dir1", "dir2", "dir3", "dir4"):
            (root / name).mkdir(mode=0o700)
            write(root / name / "f1", "...")
        os.chown(root / "dir1", 1, 1)

    def second(root: Path) -> None:
        os.chown(root / "dir2", 1, 1)
        os.chown(root / "dir4/f1", 1, 1)
        shutil.rmtree(root / "dir3")

    def third(root: Path) -> None:
        (root / "dir3").mkdir(mode=0o700)
        os.chown(root / "dir3", 1, 1)

    apply_all(service, first, second, third)


def test_files_move(service: Any) -> None:
    def first(root: Path) -> None:
        (root / "dir1").mkdir(mode=0o700)
        write(root / "dir1/f1", "Hello")
        (root / "dir2").mkdir(mode=0o700)
        write(root / "dir2/f2", "...")

    def second(root: Path) -> None:
        (root / "dir3").mkdir(mode=0o700)
        write(root / "dir3/f1", "new content")
        (root / "dir3/f1").rename(root / "dir2/f1")
        (root / "dir2/f2").rename(root / "dir3/f2")
        shutil.rmtree(root / "dir1")

    apply_all(service, first, second)


def test_a_view_is_read_only(service: Any, client: Any) -> None:
    service.committed("c", "", nothing)
    for parent in ("c", ""):
        with service.mounted(client.view(f"view {parent}", parent)) as root, pytest.raises(OSError, match="Read-only"):
            (root / "file").write_text("x")


def test_the_root_directory_is_for_everybody(service: Any, client: Any) -> None:
    with service.mounted(client.prepare("a")) as root:
        assert root.stat().st_mode & 0o777 == 0o755
        os.chown(root, 7, 8)
    client.commit("c", "a")
    with service.mounted(client.prepare("b", "c")) as root:
        assert (root.stat().st_uid, root.stat().st_gid) == (7, 8)


def test_128_layers(service: Any, client: Any) -> None:
    def change(number: int) -> Callable[[Path], None]:
        def carry_out(root: Path) -> None:
            write(root / "overwriteme", f"{number} was here")
            shutil.rmtree(root / "onlyme", ignore_errors=True)
            (root / "onlyme").mkdir()
            write(root / f"onlyme/{number}", "only me")
            write(root / f"file-{number}", "same")

        return carry_out

    parent = ""
    for number in range(128):
        parent = service.committed(f"c{number}", parent, change(number))
    with service.mounted(client.view("view", parent)) as root:
        assert (root / "overwriteme").read_text() == "127 was here"
        assert names(root / "onlyme") == ["127"]
        assert len(names(root)) == 130


def test_usage_is_what_lies_on_disk(service: Any, client: Any) -> None:
    with service.mounted(client.prepare("a")) as root:
        (root / "file").write_bytes(bytes(100_000))
        os.link(root / "file", root / "link")
        with (root / "sparse").open("wb") as file:
            file.truncate(10_000_000)
    usage = client.usage("a")
    assert 100_000 <= usage.size < 200_000
    assert usage.inodes == 3
    client.commit("c", "a")
    assert client.usage("c") == usage
    assert client.usage(client.view("v", "c") and "v").size == 0


def test_snapshots_outlive_a_restart(service: Any, client: Any) -> None:
    make_base(client)
    before = client.list()
    service.stop()
    service.start()
    assert service.client.list() == before
