"""Mounts of whole images on disk: made when a layer is complete, believed only when they are good."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazylayer.api.mounting import MountedTree, MountOptions
from lazylayer.api.settings import Settings
from lazylayer.errors import LayerError
from lazylayer.linux import mounttable
from lazylayer_frontend_erofs import FrontendErofs
from lazylayer_frontend_erofs.image import Image
from lazylayer_frontend_erofs.localimages import LocalImages
from lazylayer_frontend_erofs.machine import what_machine_lacks
from lazylayer_frontend_erofs.probe import what_is_missing
from lazylayer_frontend_erofs.writer import write_metadata
from lazylayer_testing.configuring import configured
from lazylayer_testing.frontend import trees
from lazylayer_testing.frontend.facts import differences
from lazylayer_testing.frontend.trees import SampleTree, access_tree, odd_tree

pytestmark = pytest.mark.fuse

WAIT = 30.0


def complete_tree(tree: SampleTree | None = None, identity: str = "sample") -> SampleTree:
    tree = tree or odd_tree()
    tree.identity = identity
    tree.complete = True
    return tree


class Place:
    """One place to mount at, and programs that mount there, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mountpoint = directory / "mount"
        self.mountpoint.mkdir()
        self.images = directory / "root/frontend_erofs/images"
        self.plugins: list[FrontendErofs] = []
        self.mounted: list[MountedTree] = []

    def plugin(self, **options: object) -> FrontendErofs:
        settings = Settings(root=str(self.directory / "root"), run=str(self.directory / "run"))
        plugin = configured(FrontendErofs(), "frontend_erofs", {"keeper": "off", **options}, settings)
        self.plugins.append(plugin)
        return plugin

    def mount(self, tree: SampleTree, plugin: FrontendErofs | None = None) -> MountedTree:
        plugin = plugin or self.plugin()
        mounted = plugin.lazylayer_mount_tree(tree, str(self.mountpoint), MountOptions())
        self.mounted.append(mounted)
        return mounted

    def image(self) -> Path:
        (path,) = self.images.glob("*.erofs")
        return path

    def record(self) -> Path:
        return self.image().with_suffix(".json")

    def wait_for_image(self, before: bytes = b"") -> None:
        """Waits until there is a record of an image, another one than `before`."""
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):
                if any(record.read_bytes() != before for record in self.images.glob("*.json")):
                    return
            time.sleep(0.01)
        raise AssertionError("no image was made")

    def make_image(self) -> None:
        """Mounts and unmounts a tree that is complete."""
        mounted = self.mount(complete_tree())
        self.wait_for_image()
        mounted.unmount()

    def close(self) -> None:
        for mounted in self.mounted:
            mounted.unmount(force=True)
        for plugin in self.plugins:
            plugin.lazylayer_close()
        if mounttable.mount_at(str(self.mountpoint)) is not None:
            subprocess.run(["umount", "-l", self.mountpoint], check=True)


@pytest.fixture(autouse=True)
def nothing_huge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole images are written here, and a large file is enough."""
    monkeypatch.setattr(trees, "HUGE", 3)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if missing := what_is_missing():
        pytest.skip(str(missing))
    place = Place(tmp_path)
    yield place
    place.close()


def unreadable(identity: str = "sample") -> SampleTree:
    """The tree, of which nothing can be read: what is read of a mount of it comes from elsewhere."""
    tree = complete_tree(identity=identity)
    tree.fail = LayerError("this must not be read")
    return tree


def test_the_next_mount_of_a_complete_tree_needs_no_server(place: Place) -> None:
    place.make_image()
    mounted = place.mount(unreadable())
    assert not mounted.needs_tree
    assert differences(odd_tree(), str(place.mountpoint)) == []
    mounted.unmount()
    assert mounttable.mount_at(str(place.mountpoint)) is None


def test_an_image_is_made_when_a_tree_becomes_complete(place: Place) -> None:
    plugin = place.plugin()
    tree = complete_tree()
    tree.complete = False
    place.mount(tree, plugin)
    assert not list(place.images.glob("*"))
    tree.complete = True
    place.wait_for_image()


def test_no_image_is_made_of_a_tree_that_is_not_mounted_any_more(place: Place) -> None:
    plugin = place.plugin()
    tree = complete_tree()
    tree.complete = False
    place.mount(tree, plugin).unmount()
    tree.complete = True
    plugin.lazylayer_close()
    assert not place.images.exists()


def test_files_are_for_their_owner_only(place: Place) -> None:
    place.make_image()
    assert place.images.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in place.images.iterdir()} == {0o600}
    assert len(list(place.images.iterdir())) == 2


@pytest.mark.parametrize("at", [0, 1024, -5000])
def test_a_damaged_image_is_never_shown_and_is_written_again(place: Place, at: int) -> None:
    place.make_image()
    good, status, before = place.image().read_bytes(), place.image().stat(), place.record().read_bytes()
    with place.image().open("r+b") as file:
        file.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    os.utime(place.image(), ns=(status.st_atime_ns, status.st_mtime_ns))
    mounted = place.mount(complete_tree())
    assert mounted.needs_tree
    assert differences(odd_tree(), str(place.mountpoint)) == []
    place.wait_for_image(before)
    mounted.unmount()
    assert place.image().read_bytes() == good
    assert not place.mount(unreadable()).needs_tree


@pytest.mark.parametrize("damage", ["cut", "longer", "no record", "garbage", "another image"])
def test_an_image_with_a_wrong_record_is_never_shown(place: Place, damage: str) -> None:
    place.make_image()
    record = place.record()
    before = record.read_bytes()
    if damage == "cut":
        os.truncate(place.image(), place.image().stat().st_size - 4096)
    elif damage == "longer":
        with place.image().open("ab") as file:
            file.write(bytes(4096))
    elif damage == "no record":
        record.unlink()
        before = b""
    elif damage == "garbage":
        record.write_bytes(b"{")
        before = b"{"
    else:
        record.write_text(json.dumps(json.loads(before) | {"image": "0" * 32}))
        before = record.read_bytes()
    mounted = place.mount(complete_tree())
    assert mounted.needs_tree
    place.wait_for_image(before)
    mounted.unmount()
    assert not place.mount(unreadable()).needs_tree
    assert differences(odd_tree(), str(place.mountpoint)) == []


def test_an_image_of_an_earlier_boot_is_read_before_it_is_believed(place: Place) -> None:
    place.make_image()
    record, inode = place.record(), place.image().stat().st_ino
    record.write_text(json.dumps(json.loads(record.read_text()) | {"boot": "yesterday"}))
    before = record.read_bytes()
    mounted = place.mount(complete_tree())
    assert mounted.needs_tree
    place.wait_for_image(before)
    mounted.unmount()
    assert place.image().stat().st_ino == inode, "it was good, and is not written again"
    assert not place.mount(unreadable()).needs_tree


def test_what_cannot_be_read_whole_leaves_nothing(place: Place) -> None:
    plugin = place.plugin()
    tree = complete_tree()
    tree.complete = False
    place.mount(tree, plugin)
    tree.fail = LayerError("gone")
    tree.complete = True
    plugin.lazylayer_close()
    assert list(place.images.glob("*")) == []


def test_a_tree_without_identity_has_no_image(place: Place) -> None:
    plugin = place.plugin()
    place.mount(complete_tree(identity=""), plugin)
    plugin.lazylayer_close()
    assert not place.images.exists()


@pytest.mark.parametrize("limit", [0, 100_000])
def test_an_image_that_is_too_large_is_not_kept(place: Place, limit: int) -> None:
    plugin = place.plugin(local_images=limit)
    place.mount(complete_tree(), plugin)
    plugin.lazylayer_close()
    assert not place.images.exists()


def image_of(tree: SampleTree) -> Image:
    return Image(tree, write_metadata(tree.tree))


def test_what_was_mounted_longest_ago_leaves_first(tmp_path: Path) -> None:
    image = image_of(access_tree(b"x"))
    images = LocalImages(tmp_path, 2 * image.size, lambda: False)
    for name in ("a", "b"):
        assert images.make(name, image)
    (records := sorted((tmp_path / "frontend_erofs/images").glob("*.json")))[0].touch()
    kept = images.open("a", image)
    assert kept is not None and len(records) == 2
    os.close(kept)
    assert images.make("c", image)
    for name, expected in (("a", True), ("b", False), ("c", True)):
        descriptor = images.open(name, image)
        assert (descriptor is not None) == expected, name
        if descriptor is not None:
            os.close(descriptor)


def test_what_is_mounted_counts_and_is_not_evicted(place: Place) -> None:
    """The file of a mounted image takes its room until the unmount, removed or not."""
    small = image_of(access_tree(b"x"))
    place.make_image()
    mounted = place.mount(unreadable())
    images = LocalImages(place.directory / "root", place.image().stat().st_size + small.size - 1, lambda: False)
    assert not images.make("another", small), "there is no room beside what is mounted"
    assert place.image().exists()
    mounted.unmount()
    assert images.make("another", small)
    assert place.image().stat().st_size == small.size


def test_room_is_made_before_an_image_is_written(tmp_path: Path) -> None:
    image = image_of(access_tree(b"x"))
    seen: list[int] = []

    def is_ending() -> bool:
        seen.append(sum(path.stat().st_size for path in tmp_path.rglob("*.erofs")))
        return False

    images = LocalImages(tmp_path, image.size, is_ending)
    assert images.make("a", image)
    (tmp_path / "frontend_erofs/images/left.erofs").write_bytes(b"without a record, of a killed process")
    assert images.make("b", image)
    assert seen
    assert max(seen) <= image.size


def test_what_a_killed_process_was_writing_is_removed_at_the_start(tmp_path: Path) -> None:
    image = image_of(access_tree(b"x"))
    assert LocalImages(tmp_path, 1 << 40, lambda: False).make("a", image)
    left = tmp_path / "frontend_erofs" / "images" / ".new-1-1"
    left.write_bytes(b"half an image")
    images = LocalImages(tmp_path, 1 << 40, lambda: False)
    assert not left.exists()
    kept = images.open("a", image)
    assert kept is not None
    os.close(kept)


def test_a_full_disk_keeps_nothing_and_breaks_nothing(tmp_path: Path) -> None:
    if what_machine_lacks():
        pytest.skip("mounting needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        image = image_of(odd_tree())
        assert image.size > 1 << 20
        assert not LocalImages(tmp_path, 1 << 40, lambda: False).make("a", image)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_file_system_that_erofs_cannot_lie_on_is_no_trouble(place: Place) -> None:
    """tmpfs was one when this was written; whatever it is, the tree is shown."""
    root = place.directory / "root"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root], check=True)
    try:
        place.make_image()
        mounted = place.mount(complete_tree())
        assert differences(odd_tree(), str(place.mountpoint)) == []
        if mounted.needs_tree:
            assert not list(place.images.iterdir()), "what cannot be mounted is not kept"
        mounted.unmount()
        place.close()
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def test_making_ends_with_the_program(tmp_path: Path) -> None:
    asked = iter([False, False])
    images = LocalImages(tmp_path, 1 << 40, lambda: next(asked, True))
    assert not images.make("a", image_of(odd_tree()))
    assert list((tmp_path / "frontend_erofs/images").iterdir()) == []


def test_a_mount_ends_when_somebody_unmounts_it(place: Place) -> None:
    place.make_image()
    mounted = place.mount(unreadable())
    assert not mounted.wait(0)
    subprocess.run(["umount", place.mountpoint], check=True)
    assert mounted.wait(WAIT)
    mounted.unmount()


def test_a_mount_that_is_used_stays_unless_forced(place: Place) -> None:
    from lazylayer.errors import MountError

    place.make_image()
    mounted = place.mount(unreadable())
    with (place.mountpoint / "sizes/large").open("rb"):
        with pytest.raises(MountError, match="in use"):
            mounted.unmount()
        mounted.unmount(force=True)
    assert mounttable.mount_at(str(place.mountpoint)) is None


PROGRAM = """
import sys
from lazylayer.errors import LayerError
from lazylayer.api.mounting import MountOptions
from lazylayer.api.settings import Settings
from lazylayer_testing.frontend import trees
from lazylayer_testing.frontend.trees import odd_tree, access_tree
from lazylayer_frontend_erofs import FrontendErofs
from lazylayer_frontend_erofs.options import Options

trees.HUGE = 3
directory, which = sys.argv[1:]
tree = odd_tree() if which == "odd" else access_tree(b"x")
tree.identity = "sample"
tree.fail = LayerError("this must not be read")
plugin = FrontendErofs()
plugin.lazylayer_configure(Settings(root=f"{directory}/root", run=f"{directory}/run"), Options(keeper="off"))
mounted = plugin.lazylayer_mount_tree(tree, f"{directory}/mount", MountOptions())
print(mounted.needs_tree, flush=True)
if sys.stdin.readline() == "leave\\n":
    assert mounted.leave()
"""


def start(place: Place, which: str = "odd") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(place.directory), which],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == ("False\n" if which == "odd" else "True\n")
    return process


@pytest.mark.parametrize("end", ["kill", "leave"])
def test_a_mount_outlives_its_process_without_a_keeper(place: Place, end: str) -> None:
    place.make_image()
    first = start(place)
    device = place.mountpoint.stat().st_dev
    if end == "kill":
        first.kill()
    first.communicate("leave\n" if end == "leave" else None, timeout=WAIT)
    assert differences(odd_tree(), str(place.mountpoint)) == []
    second = start(place)
    assert place.mountpoint.stat().st_dev == device, "it was taken up, not mounted again"
    second.communicate("\n", timeout=WAIT)
    assert mounttable.mount_at(str(place.mountpoint)) is None


def test_a_mount_of_another_tree_is_not_taken_up(place: Place) -> None:
    place.make_image()
    first = start(place)
    first.kill()
    first.communicate(timeout=WAIT)
    second = start(place, "access")
    try:
        shown = {os.fsencode(name) for name in os.listdir(place.mountpoint)}
        assert shown == set(access_tree(b"x").tree.root.children or {})
    finally:
        second.communicate("\n", timeout=WAIT)


def test_another_file_system_with_the_old_device_number_is_not_taken_over(place: Place) -> None:
    """The kernel gives the numbers of devices away again as soon as they are free."""
    place.make_image()
    place.mount(unreadable()).leave()
    subprocess.run(["umount", place.mountpoint], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "theirs", place.mountpoint], check=True)
    (place.mountpoint / "theirs").write_text("stays")
    there = mounttable.mount_at(str(place.mountpoint))
    assert there is not None
    (note,) = (place.directory / "run").rglob("*.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "device": there.device}))
    mounted = place.mount(unreadable())
    assert differences(odd_tree(), str(place.mountpoint)) == []
    mounted.unmount()
    assert (place.mountpoint / "theirs").read_text() == "stays"
