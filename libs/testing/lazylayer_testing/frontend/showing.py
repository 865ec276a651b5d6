"""Checks of what a frontend shows, to whom, and what it refuses: part of the frontend kit."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lazylayer.api.mounting import VirtualDirectory, VirtualFile
from lazylayer.errors import MountError
from lazylayer_testing.frontend.client import NOBODY_UID, ask
from lazylayer_testing.frontend.facts import differences
from lazylayer_testing.frontend.mounts import FrontendFixtures, Mounts
from lazylayer_testing.frontend.trees import SampleTree, access_tree, odd_tree

__all__ = ["ShowingChecks"]

_PROGRAM = "/usr/bin/id"


class ShowingChecks(FrontendFixtures):
    """Entries, users, refusals and hidden directories."""

    shows_virtual: bool | None = None
    """True if the hidden virtual directories can be looked up in a mount's root; None finds out."""

    # --- what is shown -------------------------------------------------------------------------------

    def test_every_entry_is_as_in_the_tree(self, mounts: Mounts) -> None:
        """Names, types, modes, owners, sizes, times, links, devices, xattrs and content, entry by entry."""
        tree = odd_tree()
        mounted = mounts.mount(tree)
        assert differences(tree, mounted.mountpoint) == []

    def test_hard_links_are_one_file(self, odd: tuple[SampleTree, str]) -> None:
        """The names of one file have one inode number; other files have others."""
        _, root = odd
        first, second, third, other = (
            os.lstat(os.path.join(root, name)) for name in ("links/first", "links/second", "names/third", "sizes/large")
        )
        assert first.st_ino == second.st_ino == third.st_ino != other.st_ino
        assert first.st_nlink == 3

    def test_inode_numbers_are_unique_and_stay(self, mounts: Mounts) -> None:
        """No two entries share a number, and the next mount of the tree has the same ones."""
        seen = []
        for _ in range(2):
            tree = odd_tree()
            mounted = mounts.mount(tree)
            paths = [path for path, entry in tree.tree.walk() if entry.nlink == 1 or entry.is_directory]
            paths = [path for path in paths if len(path) < 3000]
            seen.append([os.lstat(os.fsencode(mounted.mountpoint) + b"/" + path).st_ino for path in paths])
            mounted.unmount()
        assert seen[0] == seen[1]
        assert len(set(seen[0])) == len(seen[0])

    def test_directory_names_itself_and_its_parent(self, odd: tuple[SampleTree, str]) -> None:
        """`.` and `..` lead where they should."""
        _, root = odd
        below = os.path.join(root, "directories", "7")
        assert os.stat(os.path.join(below, ".")).st_ino == os.stat(below).st_ino
        assert os.stat(os.path.join(below, "..")).st_ino == os.stat(os.path.dirname(below)).st_ino

    @pytest.mark.parametrize(
        ("path", "number"),
        [
            (b"nothing", errno.ENOENT),
            (b"names/nothing", errno.ENOENT),
            (b"nothing/below", errno.ENOENT),
            (b"names/" + b"n" * 256, errno.ENAMETOOLONG),
            (b"sizes/4096/below", errno.ENOTDIR),
            (b"links/loop", errno.ELOOP),
            (b"links/loop-a/below", errno.ELOOP),
            (b"overlay/.wh.hidden-below", errno.ENOENT),
            (b"overlay/opaque/.wh..wh..opq", errno.ENOENT),
        ],
    )
    def test_what_is_not_there_is_refused(self, odd: tuple[SampleTree, str], path: bytes, number: int) -> None:
        """Names that lead nowhere, also when asked for again."""
        _, root = odd
        for _ in range(2):
            with pytest.raises(OSError) as raised:
                os.stat(os.fsencode(root) + b"/" + path)
            assert raised.value.errno == number

    def test_symlinks_are_followed(self, odd: tuple[SampleTree, str]) -> None:
        """A relative link inside the tree leads to its file."""
        tree, root = odd
        entry = tree.tree.lookup(b"sizes/4096")
        assert entry is not None
        assert Path(root, "links", "up").read_bytes() == tree.content(entry, 0, 4096)

    def test_missing_xattr_is_no_data(self, odd: tuple[SampleTree, str]) -> None:
        """An attribute that is not there is ENODATA, on a file with others and on one without any."""
        _, root = odd
        for name in ("xattrs/many", "sizes/4096", "overlay/merged"):
            for attribute in ("user.nothing", "trusted.overlay.opaque", "security.capability"):
                with pytest.raises(OSError) as raised:
                    os.getxattr(os.path.join(root, name), attribute)
                assert raised.value.errno == errno.ENODATA

    def test_statvfs_answers(self, odd: tuple[SampleTree, str]) -> None:
        """The file system is read-only, full, and takes names of 255 bytes."""
        tree, root = odd
        status = os.statvfs(root)
        assert status.f_flag & os.ST_RDONLY
        assert status.f_namemax == 255
        assert status.f_bfree == status.f_bavail == 0
        assert status.f_files - status.f_ffree == tree.tree.inodes
        assert status.f_bsize > 0

    def test_kernel_lists_the_mount(self, mounts: Mounts) -> None:
        """The table of mounts names the source; set-uid files and devices count."""
        mounted = mounts.mount(odd_tree())
        lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        (mine,) = [line for line in lines if line[1] == mounted.mountpoint]
        assert mine[0] == "sample.example/tree"
        options = mine[3].split(",")
        assert "ro" in options
        assert "nosuid" not in options
        assert "nodev" not in options

    # --- what is refused -----------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "change",
        [
            lambda root: os.open(f"{root}/sizes/1", os.O_WRONLY),
            lambda root: os.open(f"{root}/sizes/1", os.O_RDWR),
            lambda root: os.open(f"{root}/new", os.O_CREAT | os.O_WRONLY),
            lambda root: os.truncate(f"{root}/sizes/4096", 0),
            lambda root: os.mkdir(f"{root}/new"),
            lambda root: os.mkfifo(f"{root}/new"),
            lambda root: os.unlink(f"{root}/sizes/1"),
            lambda root: os.rmdir(f"{root}/directories/1"),
            lambda root: os.rename(f"{root}/sizes/1", f"{root}/sizes/2"),
            lambda root: os.link(f"{root}/sizes/1", f"{root}/new"),
            lambda root: os.symlink("x", f"{root}/new"),
            lambda root: os.chmod(f"{root}/sizes/1", 0),
            lambda root: os.chown(f"{root}/sizes/1", 1, 1),
            lambda root: os.utime(f"{root}/sizes/1", (0, 0)),
            lambda root: os.setxattr(f"{root}/sizes/1", "user.x", b""),
            lambda root: os.removexattr(f"{root}/xattrs/large", "user.large"),
        ],
    )
    def test_changes_are_refused(self, odd: tuple[SampleTree, str], change: Callable[[str], object]) -> None:
        """Nothing can be changed: EROFS."""
        _, root = odd
        with pytest.raises(OSError) as raised:
            change(root)
        assert raised.value.errno == errno.EROFS

    @pytest.mark.parametrize("path", ["does-not-exist", "a-file"])
    def test_bad_mountpoint_is_refused(self, mounts: Mounts, path: str) -> None:
        """A mountpoint that is not a directory raises MountError, which names it."""
        directory = mounts.directory()
        Path(directory, "a-file").touch()
        with pytest.raises(MountError, match=path):
            mounts.mount(odd_tree(), os.path.join(directory, path))

    # --- users ---------------------------------------------------------------------------------------

    def test_who_may_read(self, mounts: Mounts) -> None:
        """Owner, group and others as the modes say; root always."""
        tree = access_tree(Path(_PROGRAM).read_bytes())
        root = mounts.mount(tree).mountpoint

        def read(name: str, uid: int, groups: tuple[int, ...] = ()) -> object:
            return ask("read", os.path.join(root, name), uid=uid, groups=groups)

        assert read("for-all", NOBODY_UID) == "for all"
        assert read("for-root", NOBODY_UID) == "EACCES"
        assert read("for-root", 0) == "for root"
        assert read("for-owner", 1234) == "for owner"
        assert read("for-owner", NOBODY_UID) == "EACCES"
        assert read("for-owner", 0) == "for owner"
        assert read("for-group", NOBODY_UID, (4321,)) == "for group"
        assert read("for-group", NOBODY_UID) == "EACCES"
        assert read("not-for-owner", 1234) == "EACCES"
        assert read("not-for-owner", NOBODY_UID) == "not for owner"
        assert read("closed/open", NOBODY_UID) == "EACCES"
        assert read("passable/open", NOBODY_UID) == "in passable"
        assert ask("listed", os.path.join(root, "passable"), uid=NOBODY_UID) == "EACCES"
        assert ask("listed", os.path.join(root, "closed"), uid=NOBODY_UID) == "EACCES"

    @pytest.mark.parametrize(
        ("name", "uid", "may"),
        [
            ("for-all", NOBODY_UID, [True, True, False]),
            ("for-root", NOBODY_UID, [True, False, False]),
            ("for-root", 0, [True, True, False]),
            ("for-owner", 1234, [True, True, False]),
            ("for-owner", NOBODY_UID, [True, False, False]),
            ("program", NOBODY_UID, [True, True, True]),
            ("closed/open", NOBODY_UID, [False, False, False]),
        ],
    )
    def test_access(self, mounts: Mounts, name: str, uid: int, may: list[bool]) -> None:
        """access(2) says the same: that a file exists, may be read, may be executed."""
        root = mounts.mount(access_tree(b"")).mountpoint
        assert ask("access", os.path.join(root, name), uid=uid) == may

    def test_files_are_executed(self, mounts: Mounts) -> None:
        """Programs and scripts run; a set-uid program runs as its owner."""
        root = mounts.mount(access_tree(Path(_PROGRAM).read_bytes())).mountpoint
        assert ask("output", os.path.join(root, "script")) == "a script runs\n"
        assert ask("output", os.path.join(root, "program"), uid=NOBODY_UID) == f"{NOBODY_UID}\n"
        assert ask("output", os.path.join(root, "set-uid"), uid=NOBODY_UID) == "0\n"

    def test_devices_work(self, mounts: Mounts) -> None:
        """A device node is the device."""
        root = mounts.mount(access_tree(b"")).mountpoint
        assert ask("device", os.path.join(root, "null"), uid=NOBODY_UID) == ""

    # --- virtual directories -------------------------------------------------------------------------

    @pytest.fixture
    def virtual(self, mounts: Mounts) -> tuple[str, list[bytes]]:
        """A mount with a hidden directory, and the list whose last item is its file's content."""
        contents = [b"one\n"]
        file = VirtualFile(0o400, lambda: contents[-1])
        directory = {b".virtual": VirtualDirectory(0o500, {b"state.json": file})}
        root = mounts.mount(access_tree(b"", directory)).mountpoint
        shown = os.path.lexists(os.path.join(root, ".virtual"))
        assert self.shows_virtual in (None, shown)
        if not shown:
            pytest.skip("this frontend does not show virtual directories")
        return root, contents

    def test_virtual_directory_is_hidden(self, virtual: tuple[str, list[bytes]]) -> None:
        """It can be looked up in the root and nowhere else, and is not listed."""
        root, _ = virtual
        assert ".virtual" not in os.listdir(root)
        status = os.lstat(os.path.join(root, ".virtual"))
        assert (oct(status.st_mode), status.st_uid, status.st_gid) == (oct(0o40500), 0, 0)
        assert os.listdir(os.path.join(root, ".virtual")) == ["state.json"]
        file = os.lstat(os.path.join(root, ".virtual", "state.json"))
        assert (oct(file.st_mode), file.st_uid) == (oct(0o100400), 0)
        assert file.st_ino != status.st_ino
        assert not os.path.lexists(os.path.join(root, "closed", ".virtual"))

    def test_virtual_file_is_fresh(self, virtual: tuple[str, list[bytes]]) -> None:
        """Each open shows the content of that moment, whatever its size was before."""
        root, contents = virtual
        path = Path(root, ".virtual", "state.json")
        assert path.read_bytes() == b"one\n"
        for content in (b"x" * 10_000, b"short", b"", b"again"):
            contents.append(content)
            assert path.read_bytes() == content

    def test_virtual_file_is_for_root(self, virtual: tuple[str, list[bytes]]) -> None:
        """Others cannot look into it."""
        root, _ = virtual
        path = os.path.join(root, ".virtual", "state.json")
        assert ask("read", path, uid=NOBODY_UID) == "EACCES"
        assert ask("read", path) == "one\n"
