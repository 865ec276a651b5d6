"""Share one limit among the processes that use a directory: the largest that any of them is configured with.

Otherwise a command with a smaller limit would evict what a daemon with a larger one keeps. Each cache notes its limit
in a file that it holds locked; the note of a process that has died is not locked any more, and is removed.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from pathlib import Path

__all__ = ["SharedLimit"]

_number = itertools.count()


class SharedLimit:
    """The limit of one directory. Raises OSError if the note cannot be made."""

    def __init__(self, directory: Path, own: int) -> None:
        self.own = own
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)
        self._path = directory / f"{os.getpid()}-{next(_number)}"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        os.write(self._fd, b"%d" % own)

    def allows(self, size: int) -> bool:
        """Return True if the directory may hold `size` bytes. Looks for other limits only above its own."""
        return size <= self.own or size <= self.value()

    def value(self) -> int:
        """Return the largest limit of the caches that are open."""
        try:
            others = [self._read(each) for each in self._directory.iterdir() if each != self._path]
        except OSError:
            return self.own
        return max([self.own, *others])

    def close(self) -> None:
        """Withdraw the note."""
        self._path.unlink(missing_ok=True)
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @staticmethod
    def _read(path: Path) -> int:
        """Return the limit in a note; 0 for one whose process has gone."""
        try:
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read(20) or 0)
            path.unlink(missing_ok=True)
        except (OSError, ValueError):
            pass  # another process was faster, or something else lies there
        return 0
