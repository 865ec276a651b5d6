"""Records which files of an image a workload reads, in order.

The image is mounted lazily, a container runs on top of it, and the tree that the frontend shows notes
the first read of each file. No tracing by the kernel is needed, and nothing is missed: what was not
read was not fetched.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from lazylayer.api.mounting import MountOptions, VirtualDirectory
from lazylayer.api.oci import Reference
from lazylayer.api.tree import Entry, Tree
from lazylayer.layers.merged import MergedLayers
from lazylayer.mounts.filesystem import Filesystem
from lazylayer_tool_images.container import run_container
from lazylayer_tool_images.profiles import ProfileEntry

if TYPE_CHECKING:
    from lazylayer.program import Program

__all__ = ["RecordingTree", "record_workload"]

FRONTEND = "frontend_fuse"
"""Asks for each file by itself, so that it is known which file was read."""


class RecordingTree:
    """A `lazylayer.api.mounting.MountableTree` that notes which files are read. Safe to use from any thread.

    Its lock, `RecordingTree._lock`, guards the list of files.
    """

    def __init__(self, image: MergedLayers) -> None:
        self._image = image
        self._lock = threading.Lock()
        self._seen: dict[int, Entry] = {}

    @property
    def tree(self) -> Tree:
        """The image's."""
        return self._image.tree

    @property
    def source(self) -> str:
        """The image's."""
        return self._image.source

    @property
    def identity(self) -> str:
        """None: nobody may show another mount's copy of this tree."""
        return ""

    @property
    def complete(self) -> bool:
        """The image's."""
        return self._image.complete

    @property
    def virtual(self) -> Mapping[bytes, VirtualDirectory]:
        """None: a container has no business there."""
        return {}

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """See `MountableTree.read`."""
        if entry.ino not in self._seen:
            with self._lock:
                self._seen.setdefault(entry.ino, entry)
        return self._image.read(entry, offset, size)

    def profile(self) -> list[ProfileEntry]:
        """The files that were read by now, first read first."""
        with self._lock:
            seen = list(self._seen)
        paths: dict[int, bytes] = {}
        for path, entry in self.tree.walk():
            if entry.ino in self._seen:
                paths.setdefault(entry.ino, path)
        return [ProfileEntry(paths[number], self._seen[number].layer) for number in seen]


def record_workload(program: Program, reference: Reference, command: str, seconds: float) -> list[ProfileEntry]:
    """The files of an image, in a lazy format, that a container of it reads, first read first.

    `command` is what it runs, in words as a shell would split them; empty for what the image runs by
    itself. It is ended after `seconds`. Needs root and runc. Raises MountError, ResolveError, LayerError
    or BuildError.
    """
    with (
        closing(Filesystem(program)) as filesystem,
        closing(filesystem.open_image(reference)) as image,
        tempfile.TemporaryDirectory(prefix="lazylayer-record-", dir="/var/tmp") as scratch,
    ):
        tree = RecordingTree(image.merged())
        lower = Path(scratch) / "image"
        lower.mkdir()
        mounted = program.hooks.mount_tree(tree, str(lower), MountOptions(FRONTEND))
        try:
            run_container(Path(scratch), lower, image.resolved.config.config, command, seconds)
        finally:
            mounted.unmount(force=True)
        return tree.profile()
