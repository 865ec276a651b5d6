"""A process that reads a mounted file as told, past the page cache: one that reads its own mount could not be ended."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["Reader"]


class Reader:
    """Reads in a process of its own. Used by one thread."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """Return the bytes of a file. Raises OSError as the kernel does."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(offset, size, path, file=self._process.stdin, flush=True)
        kind, _, value = self._process.stdout.readline().rstrip("\n").partition(" ")
        if kind == "data":
            return base64.b64decode(value)
        raise OSError(int(value or 0), f"reading {path} failed")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def _serve() -> None:
    for line in sys.stdin:
        offset, size, path = line.rstrip("\n").split(" ", 2)
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                print("data", base64.b64encode(_read(descriptor, int(offset), int(size))).decode(), flush=True)
            finally:
                os.close(descriptor)
        except OSError as error:
            print("error", error.errno, flush=True)


def _read(descriptor: int, offset: int, size: int) -> bytes:
    """Return all bytes up to the end of the file: an error in the middle shows as a short read first."""
    data = b""
    while len(data) < size and (piece := os.pread(descriptor, size - len(data), offset + len(data))):
        data += piece
    return data


if __name__ == "__main__":
    _serve()
