"""Mount a generated tree twice in a process of its own; print both durations and the memory used.

python bench/suite/mount_process.py FRONTEND ENTRIES DIRECTORY
"""

from __future__ import annotations

import json
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lazylayer.api.mounting import MountOptions, VirtualDirectory
from lazylayer.api.settings import PluginsSettings, Settings
from lazylayer.api.tree import Entry
from lazylayer.plugin.registry import Plugins
from lazylayer_tarlayers.treebuilder import TreeBuilder

_FILES_PER_DIRECTORY = 50


class MadeUpTree:
    """A generated tree of about `entries` entries, with files of zeros."""

    source = "bench"
    complete = False

    def __init__(self, entries: int) -> None:
        self.virtual: dict[bytes, VirtualDirectory] = {}
        self.identity = f"made up, {entries}"
        build = TreeBuilder()
        for number in range(entries // (_FILES_PER_DIRECTORY + 1) or 1):
            name = b"usr/lib/directory-%d" % number
            build.add(name, Entry(stat.S_IFDIR | 0o755, children={}, mtime=number))
            for inner in range(_FILES_PER_DIRECTORY):
                build.add(name + b"/file-%d" % inner, Entry(stat.S_IFREG | 0o644, size=4000 + inner, mtime=inner))
        self.tree = build.finish()

    def when_complete(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Never call back: the tree stays incomplete. See `MountableTree.when_complete`."""
        del callback
        return lambda: None

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Return zeros."""
        return bytes(max(0, min(size, entry.size - offset)))


def _memory() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def main(frontend: str, entries: int, work: Path) -> None:
    """Mount, unmount, and mount again."""
    settings = Settings(root=str(work / "root"), run=str(work / "run"), plugins=PluginsSettings(enabled=(frontend,)))
    plugins = Plugins.load(settings.plugins)
    plugins.configure(settings)
    hooks = plugins.hooks()
    hooks.of(frontend).probe_frontend()
    tree = MadeUpTree(entries)
    mountpoint = work / "mount"
    mountpoint.mkdir()
    before = _memory()
    seconds = []
    memory = 0
    for _ in range(2):
        start = time.perf_counter()
        mounted = hooks.of(frontend).mount_tree(tree, str(mountpoint), MountOptions(allow_other=False))
        seconds.append(time.perf_counter() - start)
        memory = _memory() - before
        mounted.unmount(force=True)
    print(json.dumps({"first": seconds[0], "again": seconds[1], "memory": max(0, memory)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
