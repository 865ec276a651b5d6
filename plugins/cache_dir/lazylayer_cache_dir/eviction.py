"""Making room: the files that were not used for longest leave, down to nine tenths of the limit.

One listing of the directory finds the oldest files, a few thousand of them, and evictions use them up
before the next listing. A file that was used since its listing is skipped, and so is one that a process
has open: unlinking it would free no space. The time of the last
use is the file's time of access, which every use sets; so all processes know of each other's uses,
and of those before a restart.

The lock is `Evictor._lock`: one thread of an instance makes room, and others wait for what it makes.
Several processes may evict at the same time; each removal is counted once.
"""

# ruff: noqa: PTH116
# A Path for each call would cost as much as the call itself.
from __future__ import annotations

import heapq
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

from lazylayer_cache_dir.limits import SharedLimit
from lazylayer_cache_dir.usage import SHARDS, Held, Usage
from lazylayer_newfiles import NewFiles, remove_unless_used

__all__ = ["Evictor", "room_taken"]

LISTED = 16_384
"""Number of oldest files that one listing remembers; 200 bytes of memory each."""


class _Victim(NamedTuple):
    used: int
    shard: int
    name: str


def room_taken(file_size: int) -> int:
    """Bytes that a file of this size takes up on disk: whole blocks."""
    return (file_size + 4095) & ~4095


class Evictor:
    """Keeps the shards below `root` within the shared limit. Safe to use from any thread."""

    def __init__(self, root: str, usage: Usage, limit: SharedLimit, new: NewFiles) -> None:
        self._root = root
        self._new = new
        self._usage = usage
        self._limit = limit
        self._lock = threading.Lock()
        self._oldest: list[_Victim] = []

    def make_room(self, size: int) -> bool:
        """Evict until `size` bytes more fit in; return False if they cannot. Raises OSError."""
        with self._lock:
            limit = self._limit.value()
            if self._held() + size <= limit:
                return True  # somebody else made room in the meantime
            self._evict_down_to(min(limit - size, limit * 9 // 10))
            return self._held() + size <= limit

    def give_back_a_tenth(self) -> None:
        """Evict a tenth of the values, since the disk is full. Raises OSError."""
        with self._lock:
            self._evict_down_to(self._held() * 9 // 10)

    def count(self) -> None:
        """List the directory and set the counters accordingly. Raises OSError."""
        with self._lock:
            self._list()

    def _held(self) -> int:
        with self._usage as usage:
            return usage.total().bytes

    def _evict_down_to(self, goal: int) -> None:
        listed = False
        while self._held() > goal:
            if self._oldest:
                self._evict(self._oldest.pop())
            elif listed:
                return
            else:
                self._list()
                listed = True

    def _evict(self, victim: _Victim) -> None:
        path = f"{self._root}/{victim.shard:02x}/{victim.name}"
        try:
            with self._usage as usage:
                status = os.stat(path)
                if status.st_atime_ns <= victim.used and remove_unless_used(path):
                    usage.add(victim.shard, -room_taken(status.st_size), -1)
        except FileNotFoundError:
            return

    def _list(self) -> None:
        """Count everything, and remember the oldest files, the oldest of them last."""
        self._new.sweep()
        self._oldest = heapq.nsmallest(LISTED, self._count_shards())
        self._oldest.reverse()

    def _count_shards(self) -> Iterator[_Victim]:
        for shard in range(SHARDS):
            with self._usage as usage:
                held, files = self._list_shard(shard)
                usage.set_shard(shard, held)
            yield from files

    def _list_shard(self, shard: int) -> tuple[Held, list[_Victim]]:
        total = 0
        files: list[_Victim] = []
        try:
            entries = os.scandir(f"{self._root}/{shard:02x}")
        except FileNotFoundError:
            return Held(0, 0), []
        with entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # a file that was being written has got its name
                total += room_taken(status.st_size)
                files.append(_Victim(status.st_atime_ns, shard, entry.name))
        return Held(total, len(files)), files
