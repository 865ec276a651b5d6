"""Notes about mounts in the run directory, by which another process knows a mount of ours for certain.

A note is a file of JSON, one for each mountpoint. The process that has the mount holds a lock on its
note, so that a note without a lock belongs to a process that has died, in whatever namespace it ran.
The locks are those of open file descriptions; see fcntl(2), F_OFD_SETLK.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import threading
from pathlib import Path

import msgspec

from lazylayer.api.mounting import KernelMount
from lazylayer.linux import mounttable

__all__ = ["Note", "Notes", "note_name", "short_uuid", "shown_images"]

_KIND = "erofs"
_LARGEST = 64 * 1024
_FLOCK = struct.Struct("hhqqi4x")
"""struct flock: type, whence, start, length, and a process that must be 0."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of one mount: its place, its file system, and the tree that it shows."""

    mountpoint: str
    device: str
    """`major:minor` of the EROFS mount."""
    image: str
    """The UUID of the file system: it names the metadata, and so the places of all data."""
    token: str
    """Unlike that of any other mount."""
    identity: str = ""
    """`MountableTree.identity`; empty if unknown, and then no other process may take the mount over."""
    source: str = ""
    """The source that the kernel lists for the mount."""
    served: bool = True
    """True if a process answers the kernel's reads; False for a mount of a local image."""

    def is_of(self, mount: KernelMount) -> bool:
        """Return True if `mount` is the noted one: device, type, source and UUID agree."""
        noted = self.device, _KIND, self.source
        return noted == (mount.device, mount.kind, os.fsdecode(mount.source)) and self._has_uuid(mount)

    def _has_uuid(self, mount: KernelMount) -> bool:
        return _shown(mount) == short_uuid(self.image)


def short_uuid(image: str) -> int:
    """Return the UUID of a file system as statfs(2) shows it: its two halves folded into one number."""
    uuid = bytes.fromhex(image)
    return int.from_bytes(uuid[:8], "little") ^ int.from_bytes(uuid[8:], "little")


def shown_images() -> set[int]:
    """Return the short UUIDs of all EROFS mounts in this mount namespace."""
    mounts = [mount for mount in mounttable.mount_table().below("") if mount.kind == _KIND]
    return {shown for mount in mounts if (shown := _shown(mount)) is not None}


def _shown(mount: KernelMount) -> int | None:
    # statfs(2) of EROFS answers from memory, also when its server is dead or stopped.
    try:
        return os.statvfs(mount.mountpoint).f_fsid
    except OSError:
        return None


class Notes:
    """The notes in one directory. Safe to use from any thread; any number of processes may share it.

    `Notes._lock` guards the descriptors of the notes that this process has locked.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._ours: dict[str, int] = {}

    def read(self, target: str) -> Note | None:
        """Return the note of the mount at `target`, or None. Raises OSError and ValueError."""
        try:
            return msgspec.json.decode(self._path(target).read_bytes(), type=Note)
        except FileNotFoundError:
            return None

    def is_taken(self, target: str) -> bool:
        """Return True if another process, or another object of this one, has the mount at `target`."""
        with self._lock:
            if target in self._ours:
                return False
        try:
            descriptor = self._open(target)
        except FileNotFoundError:
            return False
        try:
            return _is_locked(descriptor)
        finally:
            os.close(descriptor)

    def claim(self, target: str) -> Note | None:
        """Lock and return the note of a mount that no process has, or None if there is none.

        Raises BlockingIOError if a process has the mount, OSError and ValueError for a note that cannot be read.
        """
        while True:
            try:
                descriptor = self._open(target)
            except FileNotFoundError:
                return None
            try:
                if not _try_lock(descriptor):
                    raise BlockingIOError(f"another process has {target}")
                if not self._is_current(target, descriptor):
                    continue
                note = msgspec.json.decode(os.pread(descriptor, _LARGEST, 0), type=Note)
                self._keep(target, descriptor)
                descriptor = -1
                return note
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def write(self, target: str, note: Note) -> None:
        """Replace the note of `target` by one that this process has locked. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._directory / f".{note_name(target)}.{os.getpid()}.{note.token}"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(temporary, flags, 0o600)
        try:
            _try_lock(descriptor)
            os.write(descriptor, msgspec.json.encode(note))
            temporary.replace(self._path(target))
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        self._keep(target, descriptor)

    def release(self, target: str) -> None:
        """Unlock the note of `target`, so that another process may claim the mount."""
        with self._lock:
            descriptor = self._ours.pop(target, -1)
        if descriptor >= 0:
            os.close(descriptor)

    def remove(self, target: str, token: str) -> bool:
        """Remove the note of `target` if it still has this token; return True if it had. Raises OSError."""
        with contextlib.suppress(ValueError):
            note = self.read(target)
            if note is None or note.token != token:
                return False
        self._path(target).unlink(missing_ok=True)
        self.release(target)
        return True

    def _path(self, target: str) -> Path:
        return self._directory / f"{note_name(target)}.json"

    def _open(self, target: str) -> int:
        return os.open(self._path(target), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    def _is_current(self, target: str, descriptor: int) -> bool:
        """Return False if the note was replaced or removed since it was opened."""
        try:
            return self._path(target).stat().st_ino == os.fstat(descriptor).st_ino
        except FileNotFoundError:
            return False

    def _keep(self, target: str, descriptor: int) -> None:
        with self._lock:
            previous = self._ours.pop(target, -1)
            self._ours[target] = descriptor
        if previous >= 0:
            os.close(previous)


def note_name(target: str) -> str:
    """Return the name of a mountpoint's note and descriptor."""
    return hashlib.sha256(os.fsencode(target)).hexdigest()[:32]


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        return False
    return True


def _is_locked(descriptor: int) -> bool:
    wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, *_ = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, wanted))
    return bool(kind != fcntl.F_UNLCK)
