"""What shows a tree: the tree itself, lazylayer with each frontend, and the peers."""

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
    """Something that shows the tree, again and again; its caches on disk outlive a mount."""

    name: str
    directory: Path
    """Where the tree is seen while it is mounted."""

    def mount(self) -> None:
        """Returns when the tree can be read."""

    def settle(self) -> None:
        """Called once all of the tree was read: brings it into the state that it is in from then on."""

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

    def settle(self) -> None:
        """It is as it is."""

    def unmount(self) -> None:
        """It stays."""

    def memory(self) -> int:
        """Nothing serves it."""
        return 0

    def close(self) -> None:
        """Leaves it as it is."""


class Mounted:
    """`lazylayer mount` of an image with one frontend, its caches and state below `directory`.

    Once it is complete it is mounted again, as after a restart; EROFS needs no server then, unless `served`.
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
        """Runs `lazylayer mount`."""
        lazylayer("mount", *self._options, self._reference, self.directory, settings=self._settings)

    def settle(self) -> None:
        """Waits for the image of EROFS, and mounts again."""
        if self._makes_image:
            images = self._home / "root" / "frontend_erofs" / "images"
            wait_until(lambda: any(images.glob("*.json")), f"{self.name}: a local image is made", _IMAGE_SECONDS)
        self.unmount()
        self.mount()

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

    def settle(self) -> None:
        """It goes on."""

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
