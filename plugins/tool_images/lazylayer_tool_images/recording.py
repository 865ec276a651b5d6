"""Record which files of an image a workload reads, in order.

The image is mounted lazily, a container runs on top of it, and the tree notes the first read of each
file. This needs no tracing by the kernel and misses nothing: a file that was not read was not fetched.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from lazylayer.api.mounting import MountableTree, MountedTree, MountOptions, VirtualDirectory
from lazylayer.api.oci import Reference
from lazylayer.api.tree import Entry, Tree
from lazylayer.errors import MountError
from lazylayer.layers import MergedLayers
from lazylayer.mounts import Filesystem
from lazylayer_tool_images.confinement import Confinement
from lazylayer_tool_images.container import filters_system_calls, run_container, workload_of
from lazylayer_tool_images.identities import FIRST_ID, IDS, shift_owners, user_ids, user_namespaces_work
from lazylayer_tool_images.profiles import ProfileEntry

if TYPE_CHECKING:
    from lazylayer.api.settings import MountSettings
    from lazylayer.program import Hooks, Program

__all__ = ["RecordingTree", "record_workload"]


class RecordingTree:
    """A `MountableTree` that notes which files are read. Safe to use from any thread.

    Its lock, `RecordingTree._lock`, guards the list of files.
    """

    def __init__(self, image: MergedLayers, *, shifted: bool = False) -> None:
        self._image = image
        self._tree = shift_owners(image.tree) if shifted else image.tree
        self._lock = threading.Lock()
        self._seen: dict[int, Entry] = {}

    @property
    def tree(self) -> Tree:
        """The image's entries; shifted, their owners are those of the workload's user namespace."""
        return self._tree

    @property
    def source(self) -> str:
        """The image's name for the device column."""
        return self._image.source

    @property
    def identity(self) -> str:
        """Nothing, so that no copy of the tree is shown in its place."""
        return ""

    @property
    def complete(self) -> bool:
        """True if all of the image is here."""
        return self._image.complete

    @property
    def virtual(self) -> Mapping[bytes, VirtualDirectory]:
        """No hidden files: the container does not need them."""
        return {}

    def when_complete(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` once all of the image is here; see `MountableTree.when_complete`."""
        return self._image.when_complete(callback)

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Note the file and return its bytes; see `MountableTree.read`."""
        if entry.ino not in self._seen:
            with self._lock:
                self._seen.setdefault(entry.ino, entry)
        return self._image.read(entry, offset, size)

    def profile(self) -> list[ProfileEntry]:
        """Return the files that were read so far, first read first."""
        with self._lock:
            seen = list(self._seen)
        paths: dict[int, bytes] = {}
        for path, entry in self.tree.walk():
            if entry.ino in self._seen:
                paths.setdefault(entry.ino, path)
        return [ProfileEntry(paths[number], self._seen[number].layer) for number in seen]


def record_workload(
    program: Program, reference: Reference, command: str, seconds: float, *, network: bool = False
) -> list[ProfileEntry]:
    """Return the files of a lazy image that a confined container of it reads, first read first.

    `command` is split into words as a shell splits it; empty runs the image's own. It is ended after
    `seconds`. With `network` it has the host's network, else none. Needs root and runc. Raises MountError,
    ResolveError, LayerError or BuildError.
    """
    confinement = _confinement(network)
    filesystem = Filesystem(program)
    with (
        # Closing the file system would end every request of the program, which has the image to convert yet.
        closing(filesystem.layers),
        closing(filesystem.open_image(reference)) as image,
        tempfile.TemporaryDirectory(prefix="lazylayer-record-", dir="/var/tmp") as scratch,
    ):
        config = image.resolved.config.config
        words, user = workload_of(command, config), user_ids(image, str(config.get("User") or ""))
        tree = RecordingTree(image.merged(), shifted=confinement.first_id is not None)
        lower = Path(scratch) / "image"
        lower.mkdir()
        mounted = mount_separately(program.hooks, program.settings.mount, tree, str(lower))
        try:
            run_container(Path(scratch), lower, config, words, user, confinement, seconds)
        finally:
            mounted.unmount(force=True)
        return tree.profile()


def _confinement(network: bool) -> Confinement:
    """Return how far this machine can confine a workload, and log what it cannot."""
    seccomp, namespaces = filters_system_calls(), user_namespaces_work()
    if not seccomp:
        logger.warning("recording without a seccomp filter: this runc was built without libseccomp")
    if not namespaces:
        logger.warning("recording without a user namespace: this machine does not allow them")
    return Confinement(FIRST_ID if namespaces else None, IDS, seccomp, network)


def mount_separately(hooks: Hooks, settings: MountSettings, tree: MountableTree, mountpoint: str) -> MountedTree:
    """Mount a tree with the first frontend that reads each file only when a program reads it.

    Asks the configured frontend, then those that `auto` tries. Raises MountError, with each one's reason.
    """
    configured = () if settings.frontend == "auto" else (settings.frontend,)
    reasons = []
    for frontend in dict.fromkeys((*configured, *(settings.prefer or hooks.candidates("lazylayer_mount_tree")))):
        try:
            return hooks.of(frontend).mount_tree(tree, mountpoint, MountOptions(separate_files=True))
        except MountError as error:
            reasons.append(str(error))
    raise MountError("no frontend here can tell which files are read: " + "; ".join(reasons))
