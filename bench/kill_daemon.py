"""Kills the process behind a mount again and again, under readers, and shows what they notice.

    python bench/kill_daemon.py [--rounds N] [--readers N] [--directory DIR] [--json FILE]

An image of DIR is mounted with frontend_erofs, and overlayfs on top, as in a container. Readers hash
its files, past the page cache, and compare. In each round `lazylayer mount`'s process is killed with
SIGKILL and `lazylayer mount` is run again, as a service manager would. Shown are the reads that failed,
the hashes that were wrong, and the longest wait of any read in each round. Needs root.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from lazylayer import kernelmounts

_PIECE = 128 * 1024


class Readers:
    """Threads that hash files, and what they noticed."""

    def __init__(self, merged: Path, expected: dict[str, str], count: int) -> None:
        self.files = 0
        self.failures: list[str] = []
        self._merged = merged
        self._expected = expected
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._longest = 0.0
        self._threads = [threading.Thread(target=self._read, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def longest_wait(self) -> float:
        """The longest wait of a read since it was asked for the last time, in seconds."""
        with self._lock:
            longest, self._longest = self._longest, 0.0
        return longest

    def stop(self) -> None:
        """Ends the threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read(self, seed: int) -> None:
        names = list(self._expected)
        random.Random(seed).shuffle(names)
        while True:
            for name in names:
                if self._stop.is_set():
                    return
                try:
                    right = self._hash(name) == self._expected[name]
                except OSError as error:
                    self.failures.append(f"{name}: {error}")
                else:
                    self.files += 1
                    if not right:
                        self.failures.append(f"{name}: wrong bytes")

    def _hash(self, name: str) -> str:
        digest = hashlib.sha256()
        start = time.perf_counter()
        descriptor = os.open(self._merged / name, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            while True:
                data = os.read(descriptor, _PIECE)
                now = time.perf_counter()
                with self._lock:
                    self._longest = max(self._longest, now - start)
                if not data:
                    return digest.hexdigest()
                digest.update(data)
                start = time.perf_counter()
        finally:
            os.close(descriptor)


class Mounts:
    """The image, its mount and the overlay on top."""

    def __init__(self, work: Path, directory: Path) -> None:
        self._work = work
        self._options = [f"--set=root={work}/root", f"--set=run={work}/run", "--set=mount.frontend=frontend_erofs"]
        self._image = f"oci:{work}/image:x"
        self._lower, self.merged = work / "lower", work / "merged"
        for each in (self._lower, self.merged, work / "upper", work / "work"):
            each.mkdir()
        self._run("convert", f"dir:{directory}", self._image)
        self.mount()
        options = f"lowerdir={self._lower},upperdir={work}/upper,workdir={work}/work"
        kernelmounts.mount("overlay", str(self.merged), "overlay", kernelmounts.MountFlags(0), options)

    def mount(self) -> None:
        """Runs `lazylayer mount`; returns when it does."""
        self._run("mount", self._image, str(self._lower))

    def kill(self) -> None:
        """Kills the process that serves the mount."""
        for each in (self._work / "run" / "processes").iterdir():
            try:
                os.kill(int(each.name), signal.SIGKILL)
            except ProcessLookupError:
                continue

    def close(self) -> None:
        """Unmounts."""
        kernelmounts.unmount(str(self.merged), force=True)
        self._run("umount", "--force", str(self._lower))

    def _run(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "lazylayer", *self._options, *arguments], check=True, capture_output=True)


def main() -> None:
    """Runs the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--directory", type=Path, default=Path("/usr/lib/python3"))
    parser.add_argument("--json", type=Path, help="write all values there too")
    arguments = parser.parse_args()
    expected = {
        str(path.relative_to(arguments.directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in arguments.directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    work = Path(tempfile.mkdtemp(prefix="lazylayer-kill-", dir="/var/tmp"))
    waits, restarts = [], []
    try:
        mounts = Mounts(work, arguments.directory)
        readers = Readers(mounts.merged, expected, arguments.readers)
        try:
            for _ in range(arguments.rounds):
                time.sleep(random.uniform(0.0, 0.5))
                readers.longest_wait()
                mounts.kill()
                start = time.perf_counter()
                mounts.mount()
                restarts.append(time.perf_counter() - start)
                time.sleep(0.1)
                waits.append(readers.longest_wait())
        finally:
            readers.stop()
            mounts.close()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{arguments.rounds} rounds, {arguments.readers} readers, {readers.files} files hashed")
    print(f"failed or wrong: {len(readers.failures)} {readers.failures[:3]}")
    for what, values in (("new process ready, s", restarts), ("longest wait of a read, s", waits)):
        print(f"{what:<28} median {statistics.median(values):.2f}  largest {max(values):.2f}")
    if arguments.json:
        found = {"failures": readers.failures, "files": readers.files, "restarts": restarts, "waits": waits}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(bool(readers.failures))


if __name__ == "__main__":
    main()
