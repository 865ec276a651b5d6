"""A process that reads mounted files as told, many at a time, past the page cache, and compares.

It is a process of its own, since one that reads its own mount could not be ended. It compares with files that hold
what is right, so that only what it found goes through the pipe. Needs nothing but the standard library.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

__all__ = ["Read", "Reader", "Seen"]


class Read(NamedTuple):
    """A read to be made: `size` bytes of `path` from `offset` on, and the file that has the right ones."""

    path: str
    right: str
    offset: int
    size: int


class Seen(NamedTuple):
    """The outcome of a read, and how long it took."""

    outcome: str
    """`right`, `wrong`, or the name of an error."""
    seconds: float


class Reader:
    """Reads in a process of its own, `threads` at a time. Used by one thread."""

    def __init__(self, threads: int = 1) -> None:
        command = [sys.executable, "-S", __file__, str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def read(self, reads: Iterable[Read]) -> list[Seen]:
        """Make reads, and return what was seen, in the same order. Raises EOFError once it is closed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps(list(reads)), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except (BrokenPipeError, ValueError):
            line = ""
        if not line:
            raise EOFError("the process that reads has ended")
        return [Seen(*each) for each in json.loads(line)]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def _serve(threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for line in sys.stdin:
            seen = list(pool.map(lambda each: _see(Read(*each)), json.loads(line)))
            print(json.dumps(seen), flush=True)


def _see(read: Read) -> Seen:
    started = time.monotonic()
    try:
        got = _read(read)
        outcome = "right" if got == _right(read) else "wrong"
    except OSError as error:
        outcome = errno.errorcode.get(error.errno or 0, str(error))
    return Seen(outcome, time.monotonic() - started)


def _read(read: Read) -> bytes:
    """Return all bytes up to the end of the file: an error in the middle shows as a short read first."""
    descriptor = os.open(read.path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        data = b""
        while len(data) < read.size and (piece := os.pread(descriptor, read.size - len(data), read.offset + len(data))):
            data += piece
        return data
    finally:
        os.close(descriptor)


_files: dict[str, mmap.mmap] = {}


def _right(read: Read) -> bytes:
    file = _files.get(read.right)
    if file is None:
        with Path(read.right).open("rb") as opened:
            file = _files[read.right] = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    return file[read.offset : read.offset + read.size]


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
