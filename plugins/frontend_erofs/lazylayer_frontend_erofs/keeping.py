"""Mounts that outlive the process that made them: their descriptors in a store, and a note about each."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from loguru import logger

from lazylayer.api.mounting import KernelMount
from lazylayer.errors import MountError
from lazylayer_frontend_erofs.descriptors import DescriptorStore, KeeperProcess, SystemdStore
from lazylayer_frontend_erofs.notes import Note, Notes, note_name

__all__ = ["KeeperKind", "Keeping", "Kept", "open_keeping"]

KeeperKind = Literal["auto", "process", "systemd", "off"]


class Keeping:
    """Keeps mounts for the next process. Safe to use from any thread.

    A mount that cannot be kept ends with its daemon, and a line in the log says so.

    :param store: holds the descriptors of served mounts; with None, those mounts end with their process.
    :param directory: holds the notes.
    """

    def __init__(self, store: DescriptorStore | None, directory: Path) -> None:
        self._store = store
        self._notes = Notes(directory)

    @property
    def keeps_served(self) -> bool:
        """True if a mount that this process serves can outlive it."""
        return self._store is not None

    def get_ready(self) -> None:
        """Prepare for the first mount, which then need not wait."""
        try:
            if self._store is not None:
                self._store.get_ready()
        except (OSError, ValueError) as error:
            logger.debug("the store of descriptors is not ready: {error}", error=error)

    def hold(self, note: Note, descriptor: int) -> None:
        """Keep the mount that `note` describes; `descriptor` serves it, or is -1."""
        try:
            self._notes.write(note.mountpoint, note)
            if self._store is not None and descriptor >= 0:
                self._store.put(note_name(note.mountpoint), descriptor)
        except (OSError, ValueError) as error:
            logger.warning("{target} will not outlive this process: {error}", target=note.mountpoint, error=error)

    def find(self, mount: KernelMount) -> Note | None:
        """Return the note of a mount of ours, whichever process has it; None for every other mount."""
        target = os.fsdecode(mount.mountpoint)
        try:
            note = self._notes.read(target)
        except (OSError, ValueError) as error:
            logger.warning("{target}: its note cannot be read: {error}", target=target, error=error)
            return None
        return note if note is not None and note.is_of(mount) else None

    def is_taken(self, target: str) -> bool:
        """Return True if another process has the mount at `target`."""
        return self._notes.is_taken(target)

    def take(self, target: str) -> tuple[Note, int] | None:
        """Return the note of the mount at `target` with its descriptor, -1 if there is none.

        The mount is this process's from now on. Returns None if nothing was kept there. Raises
        MountError if another process has the mount.
        """
        try:
            note = self._notes.claim(target)
            if note is None:
                return None
        except BlockingIOError as error:
            raise MountError(f"{target} is already mounted by another process; unmount it first") from error
        except (OSError, ValueError) as error:
            logger.warning("{target}: its note cannot be read: {error}", target=target, error=error)
            return None
        return note, self._take_descriptor(target) if note.served else -1

    def _take_descriptor(self, target: str) -> int:
        try:
            descriptor = self._store.take(note_name(target)) if self._store is not None else None
        except (OSError, ValueError) as error:
            logger.warning("{target}: its descriptor cannot be taken over: {error}", target=target, error=error)
            return -1
        return -1 if descriptor is None else descriptor

    def leave(self, target: str) -> None:
        """Let another process take the mount at `target`."""
        self._notes.release(target)

    def forget(self, target: str, token: str) -> None:
        """Keep the mount at `target` no longer, if it is still the one with this token."""
        try:
            if self._notes.remove(target, token) and self._store is not None:
                self._store.drop(note_name(target))
        except (OSError, ValueError) as error:
            logger.debug("{target}: {error}", target=target, error=error)

    def discard(self, target: str) -> None:
        """Drop what was kept of the mount at `target`, whichever process has it: waiting reads get errors."""
        try:
            note = self._notes.read(target)
        except (OSError, ValueError) as error:
            logger.debug("{target}: {error}", target=target, error=error)
        else:
            if note is not None:
                self.forget(target, note.token)


class Kept:
    """One mount, as `keeping` keeps it for the next process that mounts the same there."""

    def __init__(self, keeping: Keeping | None, target: str) -> None:
        self._keeping = keeping
        self.target = target
        self._token = secrets.token_hex(8)
        self._at_end: list[Callable[[], None]] = []

    def at_end(self, call: Callable[[], None]) -> None:
        """Have `call` called when the mount ends in this process."""
        self._at_end.append(call)

    def hold(self, mount: KernelMount | None, image: str, identity: str, descriptor: int = -1) -> None:
        """Keep the mount of an image; `descriptor` serves it, or is -1 for a local image."""
        if self._keeping is not None and mount is not None:
            note = Note(
                mountpoint=self.target,
                device=mount.device,
                image=image,
                token=self._token,
                identity=identity,
                source=os.fsdecode(mount.source),
                served=descriptor >= 0,
            )
            self._keeping.hold(note, descriptor)

    def take(self) -> tuple[Note, int] | None:
        """Take over what was kept at the same place; see `Keeping.take`. It is this mount from now on."""
        taken = self._keeping.take(self.target) if self._keeping is not None else None
        if taken is not None:
            self._token = taken[0].token
        return taken

    @property
    def can_leave_served(self) -> bool:
        """True if the mount can outlive this process although it is served."""
        return self._keeping is not None and self._keeping.keeps_served

    def leave(self) -> None:
        """Let another process take the mount."""
        if self._keeping is not None:
            self._keeping.leave(self.target)

    def release(self, descriptor: int) -> None:
        """Close a descriptor that was taken, or -1, and keep the mount no longer."""
        if descriptor >= 0:
            os.close(descriptor)
        self.forget()

    def forget(self) -> None:
        """Keep the mount no longer. Idempotent."""
        while self._at_end:
            self._at_end.pop()()
        if self._keeping is not None:
            self._keeping.forget(self.target, self._token)


def open_keeping(kind: KeeperKind, run: str, grace: float) -> Keeping:
    """Return what keeps the mounts of a program; with `auto`, systemd does where it offers that."""
    directory = Path(run, "frontend_erofs")
    return Keeping(_open_store(kind, directory, grace), directory)


def _open_store(kind: KeeperKind, directory: Path, grace: float) -> DescriptorStore | None:
    if kind == "off":
        return None
    offered = os.environ.get("FDSTORE", "0") != "0" and "NOTIFY_SOCKET" in os.environ
    if kind == "systemd" or (kind == "auto" and offered):
        return SystemdStore(os.environ, grace)
    return KeeperProcess(directory, grace)
