"""Checks of content, failures and ends: part of the frontend kit."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lazylayer.errors import LayerError, MountError, UnavailableError
from lazylayer.linux import mounttable
from lazylayer_frontends import mountcalls
from lazylayer_frontends.mountcalls import MountFlags
from lazylayer_testing.frontend.client import ask
from lazylayer_testing.frontend.facts import differences, read_whole
from lazylayer_testing.frontend.mounts import FrontendFixtures, Mounts
from lazylayer_testing.frontend.trees import CHUNK, HUGE, LARGE, SampleTree, access_tree, odd_tree

__all__ = ["ServingChecks"]

_WAIT = 60.0


class ServingChecks(FrontendFixtures):
    """Content, failures, unmounting and overlayfs."""

    # --- content -------------------------------------------------------------------------------------

    def test_random_ranges(self, odd: tuple[SampleTree, str]) -> None:
        """Ranges from anywhere, of any size, over and past the end."""
        tree, root = odd
        choose = random.Random(7)  # noqa: S311 - a test's choice
        for name in ("0", "1", "4097", str(CHUNK), str(CHUNK + 1), "large", "huge"):
            entry = tree.tree.lookup(b"sizes/" + name.encode())
            assert entry is not None
            descriptor = os.open(os.path.join(root, "sizes", name), os.O_RDONLY)
            try:
                for _ in range(60):
                    offset = choose.choice([choose.randrange(entry.size + 5000), max(0, entry.size - 100)])
                    size = choose.choice([1, 7, 4096, 100_000, 1_000_000])
                    assert os.pread(descriptor, size, offset) == tree.content(entry, offset, size)
            finally:
                os.close(descriptor)

    def test_past_the_end_is_nothing(self, odd: tuple[SampleTree, str]) -> None:
        """Reads past the end give what there is, then nothing."""
        tree, root = odd
        descriptor = os.open(os.path.join(root, "sizes", "huge"), os.O_RDONLY)
        entry = tree.tree.lookup(b"sizes/huge")
        assert entry is not None
        try:
            assert os.pread(descriptor, 100, HUGE - 10) == tree.content(entry, HUGE - 10, 10)
            assert os.pread(descriptor, 100, HUGE) == b""
            assert os.pread(descriptor, 100, HUGE + 2**40) == b""
        finally:
            os.close(descriptor)

    def test_concurrent_readers_of_one_file(self, odd: tuple[SampleTree, str]) -> None:
        """Eight readers with eight ideas of order read the same bytes."""
        tree, root = odd
        entry = tree.tree.lookup(b"sizes/large")
        assert entry is not None

        def read(seed: int) -> bool:
            choose = random.Random(seed)  # noqa: S311 - a test's choice
            starts = list(range(0, LARGE, 300_007))
            if seed % 2:
                choose.shuffle(starts)
            descriptor = os.open(os.path.join(root, "sizes", "large"), os.O_RDONLY)
            try:
                return all(
                    os.pread(descriptor, 300_007, start) == tree.content(entry, start, 300_007) for start in starts
                )
            finally:
                os.close(descriptor)

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(read, range(8))) == [True] * 8

    def test_mapped_file(self, odd: tuple[SampleTree, str]) -> None:
        """A file mapped into memory and read backwards."""
        tree, root = odd
        entry = tree.tree.lookup(b"sizes/1000000")
        assert entry is not None
        expected = hashlib.sha256()
        for start in reversed(range(0, entry.size, 10_000)):
            expected.update(tree.content(entry, start, 10_000))
        assert ask("mapped", os.path.join(root, "sizes", "1000000")) == expected.hexdigest()

    def test_sendfile(self, odd: tuple[SampleTree, str]) -> None:
        """The kernel may move a file's bytes into a socket by itself."""
        tree, root = odd
        entry = tree.tree.lookup(b"sizes/1000000")
        assert entry is not None
        ours, theirs = socket.socketpair()
        with ours, theirs, Path(root, "sizes", "1000000").open("rb") as file, ThreadPoolExecutor(1) as threads:
            received = threads.submit(read_whole, theirs.fileno())
            sent = 0
            while (some := os.sendfile(ours.fileno(), file.fileno(), sent, entry.size - sent)) > 0:
                sent += some
            ours.shutdown(socket.SHUT_WR)
            assert received.result() == tree.content(entry, 0, entry.size)

    def test_concurrent_walks(self, odd: tuple[SampleTree, str]) -> None:
        """Several walks at once, contents and all, see the same tree."""
        tree, root = odd
        with ThreadPoolExecutor(4) as threads:
            for found in threads.map(lambda number: differences(tree, root, content=number % 2 == 0), range(4)):
                assert found == []

    # --- failures ------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "failure", [LayerError("wrong digest"), UnavailableError("no network"), RuntimeError("a mistake")]
    )
    def test_failing_read_is_eio_and_can_be_repeated(self, odd: tuple[SampleTree, str], failure: Exception) -> None:
        """A read that fails is EIO; when the cause is gone the same read works."""
        tree, root = odd
        entry = tree.tree.lookup(b"sizes/1000000")
        assert entry is not None
        tree.fail = failure
        descriptor = os.open(os.path.join(root, "sizes", "1000000"), os.O_RDONLY)
        try:
            for _ in range(2):
                with pytest.raises(OSError) as raised:
                    os.pread(descriptor, 10, 500_000)
                assert raised.value.errno == errno.EIO
            tree.fail = None
            assert os.pread(descriptor, 10, 500_000) == tree.content(entry, 500_000, 10)
        finally:
            os.close(descriptor)
        assert differences(tree, root) == []

    def test_short_read_is_eio(self, odd: tuple[SampleTree, str]) -> None:
        """A tree that gives fewer bytes than it promised is an error, never zeros."""
        tree, root = odd
        tree.short = True
        descriptor = os.open(os.path.join(root, "sizes", "1000000"), os.O_RDONLY)
        try:
            with pytest.raises(OSError) as raised:
                os.pread(descriptor, 4096, 900_000)
            assert raised.value.errno == errno.EIO
            tree.short = False
            entry = tree.tree.lookup(b"sizes/1000000")
            assert entry is not None
            assert os.pread(descriptor, 200_000, 900_000) == tree.content(entry, 900_000, 200_000)
        finally:
            os.close(descriptor)

    def test_slow_read_holds_up_nobody(self, odd: tuple[SampleTree, str]) -> None:
        """While one read waits for the network, the rest of the mount answers."""
        tree, root = odd
        held = Path(root, "sizes", "4097")
        with ThreadPoolExecutor(1) as threads:
            tree.gate.clear()
            try:
                reading = threads.submit(held.read_bytes)
                assert tree.waiting.wait(_WAIT)
                assert len(os.listdir(os.path.join(root, "many"))) == 5000
                assert os.lstat(os.path.join(root, "modes", "file-644")).st_size == 10
                assert not reading.done()
            finally:
                tree.gate.set()
            assert len(reading.result(_WAIT)) == 4097

    # --- unmounting ----------------------------------------------------------------------------------

    def test_unmount(self, mounts: Mounts) -> None:
        """The directory is as it was before; a second time does nothing."""
        directory = mounts.directory()
        Path(directory, "below").touch()
        mounted = mounts.mount(odd_tree(), directory)
        assert mounted.mountpoint == directory
        assert not mounted.wait(0)
        assert "below" not in os.listdir(directory)
        mounted.unmount()
        assert os.listdir(directory) == ["below"]
        assert mounted.wait(0)
        mounted.unmount()
        mounted.unmount(force=True)

    def test_mount_in_use_stays(self, mounts: Mounts) -> None:
        """With an open file unmounting is refused, and the mount goes on; by force it goes."""
        tree = odd_tree()
        mounted = mounts.mount(tree)
        entry = tree.tree.lookup(b"sizes/4096")
        assert entry is not None
        path = os.path.join(mounted.mountpoint, "sizes", "4096")
        descriptor = os.open(path, os.O_RDONLY)
        try:
            with pytest.raises(MountError, match="in use"):
                mounted.unmount()
            assert not mounted.wait(0)
            assert Path(path).read_bytes() == tree.content(entry, 0, 4096)
            mounted.unmount(force=True)
        finally:
            os.close(descriptor)
        assert mounted.wait(_WAIT)
        assert os.listdir(mounted.mountpoint) == []

    def test_force_ends_a_waiting_read(self, mounts: Mounts) -> None:
        """A reader that waits for the network gets an error when the mount is removed by force."""
        tree = odd_tree()
        mounted = mounts.mount(tree)
        tree.gate.clear()
        try:
            with ThreadPoolExecutor(1) as threads:
                reading = threads.submit(Path(mounted.mountpoint, "sizes", "large").read_bytes)
                assert tree.waiting.wait(_WAIT)
                mounted.unmount(force=True)
                assert mounted.wait(0)
                assert mounttable.mount_at(mounted.mountpoint) is None
                tree.gate.set()
                assert isinstance(reading.exception(_WAIT), OSError)
        finally:
            tree.gate.set()

    def test_unmount_by_somebody_else_is_noticed(self, mounts: Mounts) -> None:
        """umount(8) is as good as `unmount`."""
        mounted = mounts.mount(odd_tree())
        seen = threading.Event()

        def watch() -> None:
            if mounted.wait(_WAIT):
                seen.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        subprocess.run(["umount", mounted.mountpoint], check=True)
        assert mounted.wait(_WAIT)
        watcher.join()
        assert seen.is_set()
        mounted.unmount()

    def test_mount_again_at_the_same_place(self, mounts: Mounts) -> None:
        """A mountpoint can be used again and again."""
        directory = mounts.directory()
        for _ in range(3):
            tree = access_tree(b"")
            mounted = mounts.mount(tree, directory)
            assert differences(tree, directory) == []
            mounted.unmount()

    def test_many_mounts_in_one_process(self, mounts: Mounts) -> None:
        """Several mounts, two of them of one tree, do not know of each other."""
        trees = [access_tree(b"%d" % number) for number in range(6)]
        trees.append(trees[0])
        mounted = [mounts.mount(tree) for tree in trees]
        for number in (5, 0, 3):
            mounted[number].unmount()
        for number in (1, 2, 4, 6):
            assert differences(trees[number], mounted[number].mountpoint) == []
        assert os.listdir(mounted[0].mountpoint) == []

    # --- overlayfs -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("marks", ["trusted", "user"])
    def test_overlayfs_on_top(self, mounts: Mounts, marks: str) -> None:
        """As a lower layer of overlayfs: whiteouts and opaque directories hide, files are copied up."""
        tree = odd_tree()
        mounted = mounts.mount(tree)
        base, upper, work, merged = (mounts.directory() for _ in range(4))
        for name in ("overlay/hidden-below", "overlay/opaque/of-base", "overlay/merged/of-base"):
            path = Path(base, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("base")
        options = f"lowerdir={mounted.mountpoint}:{base},upperdir={upper},workdir={work}"
        if marks == "user":
            options += ",userxattr"  # as in a user namespace
        mountcalls.mount("overlay", merged, "overlay", MountFlags(0), options)
        try:
            assert sorted(os.listdir(f"{merged}/overlay")) == ["merged", "opaque"]
            assert os.listdir(f"{merged}/overlay/opaque") == ["own"]
            assert sorted(os.listdir(f"{merged}/overlay/merged")) == ["of-base", "own"]
            entry = tree.tree.lookup(b"sizes/1000000")
            assert entry is not None
            with Path(merged, "sizes", "1000000").open("r+b") as file:
                file.write(b"changed")
            content = tree.content(entry, 0, entry.size)
            assert Path(merged, "sizes", "1000000").read_bytes() == b"changed" + content[7:]
            assert Path(mounted.mountpoint, "sizes", "1000000").read_bytes() == content
            assert os.lstat(f"{merged}/links/first").st_nlink == 3
        finally:
            mountcalls.unmount(merged, force=True)
