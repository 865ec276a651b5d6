"""What shows a tree: the tree itself, lazylayer with each frontend, and the peers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from servers.process import ServerError
from suite.bench import EXTRACTED, Bench, Peer, subject_name
from suite.commands import lazylayer
from suite.machine import frontends_here, why_not
from suite.memory import processes_of, proportional_set_size
from suite.nodes import Node

__all__ = ["Extracted", "Mounted", "Subject", "open_subjects"]


class Subject(Protocol):
    """Something that shows the tree, again and again; its caches on disk outlive a mount."""

    name: str
    directory: Path
    """Where the tree is seen while it is mounted."""

    def mount(self) -> None:
        """Returns when the tree can be read."""

    def unmount(self) -> None:
        """Ends that."""

    def memory(self) -> int:
        """The proportional set size of what serves the mount, in bytes; 0 when nothing does."""

    def close(self) -> None:
        """Ends everything, mounted or not."""


class Extracted:
    """The tree itself."""

    def __init__(self, directory: Path) -> None:
        self.name = EXTRACTED
        self.directory = directory

    def mount(self) -> None:
        """It always is."""

    def unmount(self) -> None:
        """It stays."""

    def memory(self) -> int:
        """Nothing serves it."""
        return 0

    def close(self) -> None:
        """Leaves it as it is."""


class Mounted:
    """`lazylayer mount` of an image with one frontend, its caches and state below `directory`."""

    def __init__(self, directory: Path, reference: str, host: str, frontend: str) -> None:
        self.name = subject_name(frontend)
        self.directory = directory / "mount"
        self.directory.mkdir(parents=True)
        self._home = directory
        self._reference = reference
        self._options = ["--plain-http"] if host else []
        self._settings = {
            "root": str(directory / "root"),
            "run": str(directory / "run"),
            "mount.frontend": frontend,
            "log.level": "WARNING",
        }

    def mount(self) -> None:
        """Runs `lazylayer mount`."""
        lazylayer("mount", *self._options, self._reference, self.directory, settings=self._settings)

    def unmount(self) -> None:
        """Runs `lazylayer umount`."""
        lazylayer("umount", self.directory, settings=self._settings)

    def memory(self) -> int:
        """That of the process behind the mount, and of the keeper."""
        return proportional_set_size(processes_of(self._home))

    def kill(self) -> None:
        """Ends the process that serves the mount at once, as a crash would; the keeper stays."""
        for each in (self._home / "run" / "processes").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(each.name), signal.SIGKILL)

    def close(self) -> None:
        """Unmounts, by force, and ends the keeper too."""
        if self.directory.is_mount():
            lazylayer("umount", "--force", self.directory, settings=self._settings)
        for pid in processes_of(self._home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


class _PeerMount:
    """The snapshot of an image that a peer has pulled."""

    def __init__(self, directory: Path, reference: str, host: str, peer: Peer) -> None:
        self.name = peer.name
        self.directory = directory / "mount"
        self._reference = reference
        directory.mkdir(parents=True)
        self._stack = ExitStack()
        self._node = self._stack.enter_context(Node(directory, host, peer))

    def mount(self) -> None:
        self._node.pull(self._reference)
        self._node.mount(self.directory)

    def unmount(self) -> None:
        subprocess.run(["umount", self.directory], check=True)
        self._node.remove(self._reference)

    def memory(self) -> int:
        return self._node.memory()

    def close(self) -> None:
        if self.directory.is_mount():
            subprocess.run(["umount", "--lazy", self.directory], check=True)
        self._stack.close()


def open_subjects(bench: Bench, stack: ExitStack, tree: Path, scratch: Path, image: tuple[str, str]) -> list[Subject]:
    """All that can show the tree here; the rest is noted. They are closed with the stack."""
    reference, host = image
    subjects: list[Subject] = [Extracted(tree)]
    here, missing = frontends_here()
    for frontend, why in missing.items():
        bench.skip(subject_name(frontend), why)
    subjects += [Mounted(scratch / frontend, reference, host, frontend) for frontend in here]
    for number, peer in enumerate(bench.options.peers):
        why = why_not(["root", "fuse", "containerd", "registry"])
        if why:
            bench.skip(peer.name, why)
            continue
        try:
            subjects.append(_PeerMount(scratch / f"p{number}", reference, host, peer))
        except ServerError as error:
            bench.skip(peer.name, str(error), failed=True)
    for subject in subjects:
        stack.callback(subject.close)
    return subjects
