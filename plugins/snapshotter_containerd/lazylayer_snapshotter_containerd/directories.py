"""Keep the directories of snapshots, and describe the mounts that show them to containerd.

    ROOT/snapshots/ID/fs      the changes of a snapshot, or the mountpoint of its layer
    ROOT/snapshots/ID/work    for overlayfs; active snapshots only

The paths are short and share a long beginning. containerd can shorten them further: otherwise the options for
an image of 100 layers would not fit into the page that mount(2) has for them.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lazylayer.linux import mounttable
from lazylayer_snapshotter_containerd.api.types import Mount
from lazylayer_snapshotter_containerd.store import Kind, Snapshot

__all__ = ["Directories", "measure"]

_TEMPORARY = "new-"
_BLOCK = 512


class Directories:
    """The directories below `root`, an absolute path. Safe to use from any thread, one per snapshot."""

    def __init__(self, root: Path) -> None:
        self.path = root / "snapshots"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        self._options = _overlay_options()

    def upper(self, number: int) -> str:
        """Return the directory of the files of snapshot `number`, or the mountpoint of its layer."""
        return str(self.path / str(number) / "fs")

    def create(self, snapshot: Snapshot) -> None:
        """Make the directories of a new snapshot, all or none."""
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.path))
        try:
            upper = temporary / "fs"
            upper.mkdir()
            upper.chmod(0o755)
            if snapshot.kind == Kind.ACTIVE:
                (temporary / "work").mkdir()
                (temporary / "work").chmod(0o711)
            place = self.path / str(snapshot.id)
            shutil.rmtree(place, ignore_errors=True)  # of a transaction that never ended, with this number
            temporary.rename(place)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def take_owner(self, number: int, parent: int) -> None:
        """Give the root of a new snapshot the owner of its parent's. Waits for the parent's mount, if it is one."""
        owner = Path(self.upper(parent)).stat()
        os.chown(self.upper(number), owner.st_uid, owner.st_gid)

    def ensure(self, number: int) -> str:
        """Return the mountpoint of a remote snapshot, made again if it is gone. It must not be mounted."""
        Path(self.upper(number)).mkdir(mode=0o755, parents=True, exist_ok=True)
        return self.upper(number)

    def names(self) -> list[str]:
        """Return the names in the directory: numbers of snapshots, and leftovers of interrupted ones."""
        return os.listdir(self.path)  # noqa: PTH208 - names are what is wanted

    def remove(self, name: str) -> None:
        """Remove a directory. Raises OSError, EBUSY if something is mounted in it: its files must stay."""
        directory = self.path / name
        for mount in mounttable.mount_table().below(str(directory)):
            what = f"a file system of the type {mount.kind} is mounted there"
            raise OSError(errno.EBUSY, what, os.fsdecode(mount.mountpoint))
        shutil.rmtree(directory)

    def mounts(self, snapshot: Snapshot, parents: Sequence[int]) -> list[Mount]:
        """Return the mounts of a view or an active snapshot; `parents` are its parent, that one's parent, and so on."""
        if not parents:
            access = "ro" if snapshot.kind == Kind.VIEW else "rw"
            return [Mount("bind", self.upper(snapshot.id), "", [access, "rbind"])]
        if snapshot.kind == Kind.VIEW and len(parents) == 1:
            return [Mount("bind", self.upper(parents[0]), "", ["ro", "rbind"])]
        options = []
        if snapshot.kind == Kind.ACTIVE:
            options = [f"workdir={self.path / str(snapshot.id) / 'work'}", f"upperdir={self.upper(snapshot.id)}"]
        options.append("lowerdir=" + ":".join(self.upper(each) for each in parents))
        return [Mount("overlay", "overlay", "", options + self._options)]


def measure(directory: str, seconds: float = float("inf")) -> tuple[int, int]:
    """Return the bytes on disk, and inodes, of a directory tree, hard links counted once; it may change meanwhile.

    Raises TimeoutError if that takes longer than `seconds`.
    """
    size, inodes = 0, set()
    deadline = time.monotonic() + seconds
    for each in _walk(directory):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{directory} was not measured within {seconds:g} s")
        if (each.st_dev, each.st_ino) not in inodes:
            inodes.add((each.st_dev, each.st_ino))
            size += each.st_blocks * _BLOCK
    return size, len(inodes)


def _walk(directory: str) -> Iterator[os.stat_result]:
    top = os.lstat(directory)
    yield top
    pending = [directory]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    yield status
                    if stat.S_ISDIR(status.st_mode) and status.st_dev == top.st_dev:
                        pending.append(entry.path)
        except FileNotFoundError:
            continue


def _overlay_options() -> list[str]:
    """Return the options for overlayfs: user xattrs in a user namespace, and no index, which would pin layers."""
    options = []
    if _in_user_namespace():
        options.append("userxattr")
    if Path("/sys/module/overlay/parameters/index").exists():
        options.append("index=off")
    return options


def _in_user_namespace() -> bool:
    """Return True if ids are mapped: the first user namespace maps all of them to themselves."""
    try:
        return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]
    except FileNotFoundError:
        return False
