"""What mounting costs as layers grow and mounts become many: seconds and memory.

    python bench/mount_scale.py [--largest N] [--mounts N] [--json FILE] [FRONTEND…]

Each line is a process of its own that mounts made-up trees, without data. `first` is the time of a
mount that has to make everything, `next` of another one of the same tree. The memory is the growth of
the process's proportional set size (PSS) by the mounts, beside that of the trees themselves. The last
lines are a process with many mounts of 10,000 entries each. Needs root.
"""

from __future__ import annotations

import argparse
import json
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lazylayer.mounting import MountOptions, VirtualDirectory
from lazylayer.plugins import Plugins
from lazylayer.settings import PluginsSettings, Settings
from lazylayer.tree import Entry, TreeBuilder

_FILES_PER_DIRECTORY = 50


class MadeUpTree:
    """A tree of so many entries, whose files cannot be read."""

    source = "bench"

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

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Zeros."""
        return bytes(max(0, min(size, entry.size - offset)))


def _memory() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")) / 1e6


def _work(frontend: str, entries: int, mounts: int, work: Path) -> None:
    """Mounts `mounts` trees, the first of them twice; prints what that cost as JSON."""
    settings = Settings(root=str(work / "root"), run=str(work / "run"), plugins=PluginsSettings(enabled=(frontend,)))
    plugins = Plugins.load(settings.plugins)
    plugins.configure(settings)
    hooks = plugins.hooks()
    trees = [MadeUpTree(entries + number) for number in range(mounts)]
    hooks.probe_frontend(frontend)
    before = _memory()
    seconds = []
    mounted = []
    for number, tree in enumerate([trees[0], *trees]):
        mountpoint = work / f"mount-{number}"
        mountpoint.mkdir()
        start = time.perf_counter()
        mounted.append(hooks.mount_tree(tree, str(mountpoint), MountOptions(frontend)))
        seconds.append(time.perf_counter() - start)
        if number == 0:
            mounted.pop().unmount()
    used = _memory() - before
    for each in mounted:
        each.unmount(force=True)
    found = {
        "entries": trees[0].tree.inodes,
        "first": seconds[0],
        "next": seconds[1],
        "memory": used / mounts,
        "trees": before,
    }
    print(json.dumps(found))


def _run(frontend: str, entries: int, mounts: int) -> dict[str, float]:
    work = Path(tempfile.mkdtemp(prefix="lazylayer-bench-", dir="/var/tmp"))
    try:
        command = [sys.executable, __file__, "--work", str(work), "--entries", str(entries), "--mounts", str(mounts)]
        done = subprocess.run([*command, frontend], check=True, stdout=subprocess.PIPE, text=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Runs the benchmark, or one process of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frontends", nargs="*", default=["frontend_erofs", "frontend_fuse"])
    parser.add_argument("--largest", type=int, default=1_000_000)
    parser.add_argument("--mounts", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write all values there too")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--entries", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        _work(arguments.frontends[0], arguments.entries, arguments.mounts, arguments.work)
        return
    results = []
    titles = ("entries", "mounts", "first, ms", "next, ms", "µs/entry", "MB/mount", "trees, MB")
    print(" " * 16 + "".join(f"{title:>10}" for title in titles))
    sizes = [size for size in (1_000, 10_000, 100_000, 1_000_000) if size <= arguments.largest]
    for frontend in arguments.frontends:
        for entries, mounts in [*((size, 1) for size in sizes), (10_000, arguments.mounts)]:
            found = {"frontend": frontend, "mounts": mounts, **_run(frontend, entries, mounts)}
            results.append(found)
            first, again, entries_shown = found["first"], found["next"], found["entries"]
            numbers = f"{1e3 * first:>10.1f}{1e3 * again:>10.1f}{1e6 * first / entries_shown:>10.2f}"
            memory = f"{found['memory']:>10.2f}{found['trees']:>10.1f}"
            print(f"{frontend:<16}{entries_shown:>10}{mounts:>10}{numbers}{memory}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
