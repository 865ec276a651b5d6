"""Ways to show a tree: the tree itself, lazylayer with each frontend, and the peers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from lazylayer_testing.servers.process import ServerError, wait_until
from suite.bench import EROFS, EXTRACTED, Bench, Peer, subject_name
from suite.commands import lazylayer
from suite.machine import frontends_here, why_not
from suite.memory import processes_of, proportional_set_size
from suite.nodes import Node

__all__ = ["Extracted", "Mounted", "Subject", "open_subjects"]

_IMAGE_SECONDS = 120.0


class Subject(Protocol):
    """A way to show the tree. Its caches on disk outlive a mount."""

    name: str
    directory: Path
    """The tree's root while it is mounted."""

    def mount(self) -> None:
        """Mount the tree; return when it can be read."""

    def settle(self) -> None:
        """Bring the subject to its steady state; called once the whole tree was read."""

    def unmount(self) -> None:
        """Unmount the tree."""

    def memory(self) -> int:
        """Return the proportional set size of the mount's processes, in bytes; 0 without any."""

    def close(self) -> None:
        """Unmount if mounted, and end all processes."""


class Extracted:
    """The tree itself."""

    def __init__(self, directory: Path) -> None:
        self.name = EXTRACTED
        self.directory = directory

    def mount(self) -> None:
        """Do nothing: the tree needs no mount."""

    def settle(self) -> None:
        """Do nothing: the tree has only one state."""

    def unmount(self) -> None:
        """Do nothing."""

    def memory(self) -> int:
        """Return 0: no process serves the tree."""
        return 0

    def close(self) -> None:
        """Do nothing: the tree stays for the next run."""


class Mounted:
    """`lazylayer mount` of an image with one frontend, with caches and state below `directory`.

    Once complete, the image is mounted again, as after a restart; then EROFS needs no server, unless `served`.
    """

    def __init__(self, directory: Path, reference: str, host: str, frontend: str, *, served: bool = False) -> None:
        self.name = subject_name(frontend) + (", served" if served else "")
        self._makes_image = frontend == "frontend_erofs" and not served
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
        if served:
            self._settings["plugin.frontend_erofs.local_images"] = "0"

    def mount(self) -> None:
        """Run `lazylayer mount`."""
        lazylayer("mount", *self._options, self._reference, self.directory, settings=self._settings)

    def settle(self) -> None:
        """Wait for the local EROFS image, and mount again."""
        if self._makes_image:
            images = self._home / "root" / "frontend_erofs" / "images"
            wait_until(lambda: any(images.glob("*.json")), f"{self.name}: a local image is made", _IMAGE_SECONDS)
        self.unmount()
        self.mount()

    def unmount(self) -> None:
        """Run `lazylayer umount`."""
        lazylayer("umount", self.directory, settings=self._settings)

    def memory(self) -> int:
        """Return the size of the process behind the mount and of the keeper."""
        return proportional_set_size(processes_of(self._home))

    def kill(self) -> None:
        """Kill the process that serves the mount, as in a crash; the keeper stays."""
        for each in (self._home / "run" / "processes").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(each.name), signal.SIGKILL)

    def close(self) -> None:
        """Unmount by force, and end the keeper."""
        if self.directory.is_mount():
            lazylayer("umount", "--force", self.directory, settings=self._settings)
        for pid in processes_of(self._home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


class _PeerMount:
    """The snapshot of an image that a peer pulled."""

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

    def settle(self) -> None:
        """Do nothing: the peer has only one state."""

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
    """Return the subjects that work here, and skip the others; the stack closes them."""
    reference, host = image
    subjects: list[Subject] = [Extracted(tree)]
    here, missing = frontends_here()
    for frontend, why in missing.items():
        bench.skip(subject_name(frontend), why)
    subjects += [Mounted(scratch / frontend, reference, host, frontend) for frontend in here]
    if EROFS in [subject.name for subject in subjects]:
        subjects.append(Mounted(scratch / "served", reference, host, "frontend_erofs", served=True))
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
