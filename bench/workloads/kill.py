"""Kill the process behind a mount again and again under readers, and measure their waits.

An image is mounted with frontend_erofs, and overlayfs on top, as in a container. Eight readers hash
its files, past the page cache, and compare. In each round `lazylayer mount`'s process is killed with
SIGKILL and `lazylayer mount` is run again, as a service manager would.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lazylayer_frontends import mountcalls
from suite.bench import EROFS, Bench, Workload
from suite.images import served_image
from suite.machine import frontends_here
from suite.subjects import Mounted
from suite.trees import debian_tree

__all__ = ["WORKLOADS"]

_PIECE = 128 * 1024
_READERS = 8
_AFTERWARDS_SECONDS = 0.1


class _Readers:
    """Threads that hash files and time their reads. A lock guards what they share."""

    def __init__(self, directory: Path, expected: dict[str, str], count: int) -> None:
        self.files = 0
        self.failures: list[str] = []
        self._directory = directory
        self._expected = expected
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._longest = 0.0
        self._threads = [threading.Thread(target=self._read, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def longest_wait(self) -> float:
        """Return the longest wait of a read since the last call, in seconds."""
        with self._lock:
            longest, self._longest = self._longest, 0.0
        return longest

    def stop(self) -> None:
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
                problem = self._check(name)
                with self._lock:
                    self.files += 1
                    if problem:
                        self.failures.append(f"{name}: {problem}")

    def _check(self, name: str) -> str:
        try:
            return "" if self._hash(name) == self._expected[name] else "wrong bytes"
        except OSError as error:
            return str(error)

    def _hash(self, name: str) -> str:
        digest = hashlib.sha256()
        start = time.perf_counter()
        descriptor = os.open(self._directory / name, os.O_RDONLY)
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


def _measure(bench: Bench) -> None:
    here, missing = frontends_here()
    if "frontend_erofs" not in here:
        bench.skip("", missing["frontend_erofs"])
        return
    tree = bench.options.tree or debian_tree(bench.options.work) / "usr/lib/python3"
    expected = {
        str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in tree.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    with bench.scratch() as scratch, ExitStack() as stack:
        reference, host = stack.enter_context(served_image(tree, scratch))
        mounted = Mounted(scratch / "mounted", reference, host, "frontend_erofs")
        stack.callback(mounted.close)
        mounted.mount()
        readers = _Readers(stack.enter_context(_overlay(mounted.directory, scratch)), expected, _READERS)
        stack.callback(readers.stop)
        for number in range(bench.options.rounds):
            bench.say(f"  round {number + 1} of {bench.options.rounds}")
            _kill_once(bench, mounted, readers)
    bench.record("files hashed", EROFS, readers.files, "count")
    bench.record("reads that failed or were wrong", EROFS, len(readers.failures), "count")
    if readers.failures:
        bench.skip("reads", f"{len(readers.failures)} failed or were wrong: {readers.failures[:3]}", failed=True)


def _kill_once(bench: Bench, mounted: Mounted, readers: _Readers) -> None:
    time.sleep(random.uniform(0.0, 0.5))
    readers.longest_wait()
    mounted.kill()
    start = time.perf_counter()
    mounted.mount()
    bench.record("new process ready", EROFS, time.perf_counter() - start, "s")
    time.sleep(_AFTERWARDS_SECONDS)
    bench.record("longest wait of a read in a round", EROFS, readers.longest_wait(), "s")


@contextmanager
def _overlay(lower: Path, scratch: Path) -> Iterator[Path]:
    directories = {name: scratch / name for name in ("merged", "upper", "overlay-work")}
    for each in directories.values():
        each.mkdir()
    merged = directories["merged"]
    options = f"lowerdir={lower},upperdir={directories['upper']},workdir={directories['overlay-work']}"
    mountcalls.mount("overlay", str(merged), "overlay", mountcalls.MountFlags(0), options)
    try:
        yield merged
    finally:
        mountcalls.unmount(str(merged), force=True)


WORKLOADS = (
    Workload(
        name="kill",
        summary="kill -9 of the process behind a mount under eight readers: each round's stall",
        measure=_measure,
        needs=("root", "fuse"),
    ),
)
