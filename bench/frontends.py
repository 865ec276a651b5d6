"""Frontends beside an extracted tree: walk, stat, warm, cold and random reads, alternating, in one run.

    python bench/frontends.py [--directory DIR] [--entries N] [--runs N] [--drop-caches] [FRONTEND…]

Without FRONTEND, those are measured that work here. The tree is a copy of DIR (by default /usr, as
much of it as N entries) on the disk. Each frontend shows the same tree from a process of its own,
with the data in one file beside it, so that what is measured is the frontend, not a network. `cold`
reads are those after a new mount, and for the extracted tree after its pages were dropped;
`--drop-caches` (root, disturbs the machine) empties all caches for both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import stat
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lazylayer.hooks import Hooks
from lazylayer.mounting import MountOptions, VirtualDirectory
from lazylayer.plugins import Plugins
from lazylayer.settings import PluginsSettings, Settings
from lazylayer.tree import Entry, TreeBuilder

_RANDOM_READS = """
import os, random, sys
files = sorted((path for directory, _, names in os.walk(".") for path in [os.path.join(directory, n) for n in names]
                if os.path.isfile(path) and not os.path.islink(path)), key=os.path.getsize)
descriptor = os.open(files[-1], os.O_RDONLY)
size, choose = os.path.getsize(files[-1]), random.Random(1)
for _ in range(200_000):
    os.pread(descriptor, 4096, choose.randrange(size // 4096) * 4096)
"""

_WORKLOADS = {
    "walk": "find . -printf '%y %m %U %G %s %T@ %l %p\\n' > /dev/null",
    "stat": "find . -print0 | xargs -0 -P2 stat -c %s > /dev/null",
    "read, warm": "find . -type f -print0 | xargs -0 cat > /dev/null",
    "read, warm, 4 at once": "find . -type f -print0 | xargs -0 -P4 -n100 cat > /dev/null",
    "random 4 KiB, warm": f"{sys.executable} -c '{_RANDOM_READS}'",
}


class DirectoryTree:
    """A copied directory as a `MountableTree`: its entries, and its data one after the other in a file."""

    source = "bench"
    identity = ""

    def __init__(self, root: Path, data: Path) -> None:
        self.virtual: dict[bytes, VirtualDirectory] = {}
        build = TreeBuilder()
        self._offsets: dict[int, int] = {}
        entries: list[tuple[Entry, int]] = []
        offset = 0
        with data.open("wb") as packed:
            for directory, names, files in os.walk(os.fsencode(root)):
                for name in sorted(names + files):
                    path = directory + b"/" + name
                    entry = _entry(path)
                    build.add(os.path.relpath(path, os.fsencode(root)), entry)
                    if entry.is_file:
                        packed.write(Path(os.fsdecode(path)).read_bytes())
                        entries.append((entry, offset))
                        offset += entry.size
        self.tree = build.finish()
        self._offsets = {entry.ino: offset for entry, offset in entries}
        self._data = os.open(data, os.O_RDONLY)

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Bytes of a file."""
        size = max(0, min(size, entry.size - offset))
        return os.pread(self._data, size, self._offsets[entry.ino] + offset)


def _entry(path: bytes) -> Entry:
    status = os.lstat(path)
    entry = Entry(status.st_mode, status.st_uid, status.st_gid, mtime=status.st_mtime_ns)
    if stat.S_ISDIR(status.st_mode):
        entry.children = {}
    elif stat.S_ISLNK(status.st_mode):
        entry.target = os.readlink(path)  # noqa: PTH115 - bytes
        entry.size = len(entry.target)
    elif stat.S_ISREG(status.st_mode):
        entry.size = status.st_size
    return entry


class Served:
    """A frontend's mount of the tree in another process."""

    def __init__(self, frontend: str, work: Path) -> None:
        self.mountpoint = work / frontend
        self.mountpoint.mkdir(exist_ok=True)
        command = [sys.executable, __file__, "--serve", frontend, "--work", str(work)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.ready = json.loads(self._process.stdout.readline())

    def memory(self) -> int:
        """Proportional set size of the server, in bytes."""
        lines = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))

    def close(self) -> None:
        """Unmounts and ends the process."""
        self._process.communicate("\n", timeout=60)


def _serve(frontend: str, work: Path) -> None:
    tree = DirectoryTree(work / "extracted", work / f"data-{frontend}")
    settings = Settings(
        root=str(work / f"root-{frontend}"), run=str(work / "run"), plugins=PluginsSettings(enabled=(frontend,))
    )
    plugins = Plugins.load(settings.plugins)
    plugins.configure(settings)
    hooks: Hooks = plugins.hooks()
    start = time.perf_counter()
    mounted = hooks.mount_tree(tree, str(work / frontend), MountOptions(frontend))
    print(json.dumps({"seconds": time.perf_counter() - start, "entries": tree.tree.inodes}), flush=True)
    sys.stdin.readline()
    mounted.unmount(force=True)


def _usable() -> list[str]:
    """The frontends that work here."""
    plugins = Plugins.load(PluginsSettings(enabled=("frontend_erofs", "frontend_fuse")))
    plugins.configure(Settings())
    return [
        record.name
        for record in plugins.records
        if record.status == "ok" and not plugins.hooks().probe_frontend(record.name)
    ]


def _copy(source: Path, target: Path, entries: int) -> None:
    """Copies the first `entries` files, symlinks and directories of `source`, by name."""
    count = 0
    for directory, names, files in os.walk(source):
        names.sort()
        there = target / Path(directory).relative_to(source)
        there.mkdir(parents=True, exist_ok=True)
        for name in sorted(files) + [each for each in names if Path(directory, each).is_symlink()]:
            path = Path(directory, name)
            if path.is_symlink() or path.is_file():
                shutil.copy2(path, there / name, follow_symlinks=False)
                count += 1
        count += 1
        if count >= entries:
            return


def _seconds(command: str, directory: Path) -> float:
    start = time.perf_counter()
    subprocess.run(["sh", "-c", command], cwd=directory, check=True)
    return time.perf_counter() - start


def _drop_pages(directory: Path) -> None:
    os.sync()
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _drop_everything() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def _measure(frontends: Sequence[str], work: Path, runs: int, *, drop: bool) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}

    def note(workload: str, who: str, value: float) -> None:
        found.setdefault(workload, {}).setdefault(who, []).append(value)

    extracted = work / "extracted"
    read = _WORKLOADS["read, warm"]
    for _ in range(runs):
        served = {}
        for who in ("extracted", *frontends):
            if who != "extracted":
                served[who] = Served(who, work)
                note("mount", who, served[who].ready["seconds"])
            else:
                _drop_pages(extracted)
            if drop:
                _drop_everything()
            note("read, cold", who, _seconds(read, extracted if who == "extracted" else served[who].mountpoint))
        for workload, command in _WORKLOADS.items():
            for who in ("extracted", *frontends):
                directory = extracted if who == "extracted" else served[who].mountpoint
                _seconds(command, directory)
                note(workload, who, _seconds(command, directory))
        for who, mount in served.items():
            note("server's memory, MB", who, mount.memory() / 1e6)
            mount.close()
    return found


def _print(found: dict[str, dict[str, list[float]]], echo: Callable[[str], None] = print) -> None:
    echo(f"{'median':<24}{'':<18}{'':>10}  ratio to the extracted tree")
    for workload, results in found.items():
        base = statistics.median(results["extracted"]) if "extracted" in results else 0.0
        for who, values in results.items():
            median = statistics.median(values)
            ratio = f"{median / base:8.2f}" if base and who != "extracted" else ""
            echo(f"{workload:<24}{who:<18}{median:>10.3f}  {ratio}")


def main() -> None:
    """Runs the benchmark, or one server of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frontends", nargs="*")
    parser.add_argument("--directory", type=Path, default=Path("/usr"))
    parser.add_argument("--entries", type=int, default=12_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--drop-caches", action="store_true")
    parser.add_argument("--json", type=Path, help="write all values there too")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        _serve(arguments.serve, arguments.work)
        return
    frontends = arguments.frontends or _usable()
    work = Path(tempfile.mkdtemp(prefix="lazylayer-bench-", dir="/var/tmp"))
    try:
        _copy(arguments.directory, work / "extracted", arguments.entries)
        found = _measure(frontends, work, arguments.runs, drop=arguments.drop_caches)
    finally:
        shutil.rmtree(work)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, {arguments.runs} runs")
    _print(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
