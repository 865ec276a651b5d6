"""A simple cache on disk that keeps the contract, and many that break it in one way each.

They are opened in other processes too, which import this module.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lazylayer.api.cache import Cache

__all__ = ["BROKEN_PERSISTENT", "FileCache"]


class FileCache(Cache):
    """A file for each value, behind its sha256; all is listed at each put. Slow, and right."""

    numbers = itertools.count()

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self.directory = directory
        self.limit = max_bytes
        directory.mkdir(exist_ok=True)

    def path(self, key: str) -> Path:
        return self.directory / f"value-{hashlib.sha256(key.encode()).hexdigest()}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def get(self, key: str) -> bytes | None:
        try:
            content = self.path(key).read_bytes()
            now = time.time_ns()
            os.utime(self.path(key), ns=(now, now))
        except FileNotFoundError:
            return None
        return self.unpacked(content)

    def put(self, key: str, data: bytes) -> None:
        content = self.packed(data)
        if len(content) > self.limit:
            return
        with self.locked():
            self.write(self.path(key), content)
            self.evict()

    def remove(self, key: str) -> None:
        with self.locked():
            self.path(key).unlink(missing_ok=True)

    def packed(self, data: bytes) -> bytes:
        return hashlib.sha256(data).digest() + data

    def unpacked(self, content: bytes) -> bytes | None:
        return content[32:] if hashlib.sha256(content[32:]).digest() == content[:32] else None

    def write(self, path: Path, content: bytes) -> None:
        new = self.directory / f"new-{os.getpid()}-{next(self.numbers)}"
        new.write_bytes(content)
        now = time.time_ns()
        os.utime(new, ns=(now, now))
        new.rename(path)

    def evict(self) -> None:
        files = sorted((each.stat().st_mtime_ns, each.stat().st_size, each) for each in self.mine())
        held = sum(size for _, size, _ in files)
        for _, size, file in files:
            if held <= self.limit:
                return
            file.unlink()
            held -= size

    def mine(self) -> list[Path]:
        return list(self.directory.glob("value-*"))


class ForgetsAtClose(FileCache):
    def close(self) -> None:
        for file in self.mine():
            file.unlink()


class KnowsItsOwnPutsOnly(FileCache):
    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        super().__init__(directory, max_bytes=max_bytes)
        self.known = set(self.mine())

    def get(self, key: str) -> bytes | None:
        return super().get(key) if self.path(key) in self.known else None

    def write(self, path: Path, content: bytes) -> None:
        super().write(path, content)
        self.known.add(path)


class EvictsItsOwnPutsOnly(KnowsItsOwnPutsOnly):
    def get(self, key: str) -> bytes | None:
        return FileCache.get(self, key)

    def mine(self) -> list[Path]:
        return [each for each in super().mine() if each in getattr(self, "known", ())]


class WritesInPlace(FileCache):
    def unpacked(self, content: bytes) -> bytes | None:
        return content[32:]

    def write(self, path: Path, content: bytes) -> None:
        with path.open("wb", buffering=0) as file:
            for at in range(0, len(content), 100):
                file.write(content[at : at + 100])


class ChecksNothing(FileCache):
    def unpacked(self, content: bytes) -> bytes | None:
        return content[32:]


class ChecksTheSizeOnly(FileCache):
    def packed(self, data: bytes) -> bytes:
        return len(data).to_bytes(32, "little") + data

    def unpacked(self, content: bytes) -> bytes | None:
        return content[32:] if int.from_bytes(content[:32], "little") == len(content) - 32 else None


class SharesOneTemporaryFile(FileCache):
    @contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def unpacked(self, content: bytes) -> bytes | None:
        return content[32:]

    def write(self, path: Path, content: bytes) -> None:
        new = self.directory / "new"
        new.write_bytes(content)
        time.sleep(0)
        new.rename(path)


BROKEN_PERSISTENT: dict[type[FileCache], str] = {
    ForgetsAtClose: "test_values_survive_reopening",
    KnowsItsOwnPutsOnly: "test_processes_share_the_store",
    EvictsItsOwnPutsOnly: "test_processes_share_the_limit",
    WritesInPlace: "test_killed_writer_leaves_nothing_torn",
    ChecksNothing: "test_damaged_file_is_a_miss",
    ChecksTheSizeOnly: "test_damaged_file_is_a_miss",
    SharesOneTemporaryFile: "test_instances_do_not_disturb_each_other",
}
"""Each broken persistent cache, and the check that must fail for it."""
