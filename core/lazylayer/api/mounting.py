"""The types between the core and a frontend: the tree to show, and the mount that shows it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from lazylayer.api.tree import Entry, Tree

__all__ = [
    "KernelMount",
    "LeftMount",
    "Missing",
    "MountOptions",
    "MountableTree",
    "MountedTree",
    "VirtualDirectory",
    "VirtualFile",
    "Works",
    "merge_directories",
]


class VirtualFile(msgspec.Struct, frozen=True):
    """A file whose content is made when it is opened. `mode` holds permission bits only."""

    mode: int
    content: Callable[[], bytes]


class VirtualDirectory(msgspec.Struct, frozen=True):
    """A directory, owned by root, that can be looked up in a mount's root but is not listed there."""

    mode: int
    files: Mapping[bytes, VirtualFile]


def merge_directories(answers: Iterable[Mapping[bytes, VirtualDirectory]]) -> dict[bytes, VirtualDirectory]:
    """Merge directories of one name into one with the files of all; of files of one name the first is taken."""
    merged: dict[bytes, VirtualDirectory] = {}
    for answer in answers:
        for name, directory in answer.items():
            earlier = merged.get(name, directory)
            merged[name] = VirtualDirectory(earlier.mode, {**directory.files, **earlier.files})
    return merged


class MountableTree(Protocol):
    """The tree that a frontend shows. It never changes; all methods may be called from any thread."""

    @property
    def tree(self) -> Tree:
        """The entries.

        Show a directory marked `opaque` with `OPAQUE_XATTRS`, each `y` and listed first; show a `whiteout` as a
        character device 0/0.
        """

    @property
    def source(self) -> str:
        """The name of the tree for the device column of /proc/self/mounts: one word, no secrets."""

    @property
    def identity(self) -> str:
        """Names the tree: what has the same identity is the same tree, today and on any machine.

        Empty where that is not known. A frontend may keep what it made of the tree under this name.
        """

    @property
    def virtual(self) -> Mapping[bytes, VirtualDirectory]:
        """Hidden directories of the root by name. A frontend that cannot show them leaves them out."""

    @property
    def complete(self) -> bool:
        """Return True if all data are available locally. See `when_complete`."""

    def when_complete(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once, when all data are here; at once if they are. Return a function that withdraws it.

        Withdraw it when the mount ends: layers outlive mounts. Called from a thread that a reader may need:
        return soon. An error is logged.
        """

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Return the verified bytes of a file from `offset`, at most `size`; fewer only at its end.

        Raises LazylayerError, which a frontend answers with EIO; it has been reported by then.
        """


class Works(msgspec.Struct, frozen=True):
    """A frontend works on this machine."""


class Missing(msgspec.Struct, frozen=True):
    """A frontend does not work on this machine: what is missing, and what to do about it."""

    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}" if self.remedy else self.reason


class MountOptions(msgspec.Struct, frozen=True):
    """Options of a mount: `[mount]` of the settings, as far as it is for frontends."""

    allow_other: bool = True
    """Let other users see the mount."""
    debug: bool = False
    """Trace every request."""
    suid: bool = True
    """Honour set-user-ID bits, file capabilities and device files; without, mount with `nosuid` and `nodev`."""
    separate_files: bool = False
    """Read a file of the tree only when a program reads it, so that reads tell what the program needs.

    A frontend that reads ahead from one file into the next raises MountError.
    """


class MountedTree(ABC):
    """A mount that a frontend made and serves."""

    frontend: str
    mountpoint: str
    needs_tree: bool = True
    """True if reads need the tree; False for a mount that has all data elsewhere."""

    @abstractmethod
    def unmount(self, *, force: bool = False) -> None:
        """Unmount and stop serving. Idempotent.

        With `force`, readers in flight get errors and the mount goes at once even if it is in use;
        without, a mount in use raises MountError and stays.
        """

    def leave(self) -> bool:
        """Leave the mount for the next process that mounts the same tree there; return False if that is impossible.

        Readers wait for that process, which takes the mount over. This one must end soon.
        """
        return False

    @abstractmethod
    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the mount is gone, by `unmount` or by umount(8); return False on a time-out.

        `timeout` is in seconds; None waits forever.
        """


class KernelMount(msgspec.Struct, frozen=True, kw_only=True):
    """One line of /proc/self/mountinfo."""

    mount_id: int
    parent_id: int
    """The mount that this one lies on: the one it covers, if both are at the same mountpoint."""
    device: str
    """`major:minor` of the mounted file system; unique among those that are mounted now."""
    mountpoint: bytes
    kind: str
    """The type of the file system, `fuse.lazylayer` for one."""
    source: bytes


class LeftMount(ABC):
    """A mount that a frontend recognizes as its own, though this process does not serve it."""

    frontend: str
    alive: bool
    """True while the process that serves the mount lives, even if it is stopped or busy."""
    resumable: bool = False
    """True if `lazylayer_mount_tree` of the same frontend takes the mount over, or removes it, by itself."""

    @abstractmethod
    def remove(self) -> None:
        """Unmount at once, in use or not, and drop everything kept for the mount's next process.

        Waiting reads get errors. Raises MountError.
        """
