"""Files that are being written. Their writer holds a lock, so those of killed processes are recognized.

The lock is a shared flock(2) on the file, which ends with the process. `sweep` removes the files whose
exclusive lock it gets.
"""

# ruff: noqa: PTH103, PTH108
# A Path for each call would cost as much as the call itself.
from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["NewFiles", "remove_unless_used"]

_numbers = itertools.count()


class NewFiles:
    """The files that are being written in a directory. Safe to use from any thread and process.

    :param directory: made, for its owner only, with the first file.
    :param prefix: of the names of these files, where other files lie beside them.
    """

    def __init__(self, directory: str, prefix: str = "") -> None:
        self._directory = directory
        self._prefix = prefix

    @contextmanager
    def create(self) -> Iterator[tuple[int, str]]:
        """Yield the descriptor and path of a new file; remove it at the end unless it was renamed.

        Raises OSError.
        """
        fd, path = self._create()
        try:
            yield fd, path
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)
            os.close(fd)

    def sweep(self) -> None:
        """Remove the files of processes that were killed. Raises OSError."""
        with suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.startswith(self._prefix):
                    with suppress(FileNotFoundError):
                        remove_unless_used(entry.path)

    def _create(self) -> tuple[int, str]:
        while True:
            path = f"{self._directory}/{self._prefix}{os.getpid()}-{next(_numbers)}"
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                continue  # of a killed process with our number
            except FileNotFoundError:
                os.makedirs(self._directory, 0o700, exist_ok=True)
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
                if os.fstat(fd).st_nlink:
                    return fd, path
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # swept between open(2) and flock(2)


def remove_unless_used(path: str) -> bool:
    """Remove a file unless a process holds its lock; return True if it is gone. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
