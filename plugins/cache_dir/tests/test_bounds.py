"""What lies on disk stays within the limit: values that are open, and files of killed processes, included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazylayer.api.cache import CachedValue
from lazylayer_cache_dir import DirectoryCache

SIZE = 100_000
LIMIT = 1024 * 1024


def open_value(cache: DirectoryCache, key: str) -> CachedValue:
    value = cache.open(key)
    assert value is not None
    return value


def bytes_of_descriptors(directory: Path) -> int:
    """Return the bytes on disk of files in the directory and of unlinked ones that this process has open."""
    sizes: dict[int, int] = {}
    for path in [*directory.rglob("*"), *Path("/proc/self/fd").iterdir()]:
        try:
            status = path.stat()
            inside = directory in path.parents or str(path.readlink()).startswith(str(directory))
        except OSError:
            continue
        if inside and path.is_file():
            sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[DirectoryCache]:
    cache = DirectoryCache(tmp_path / "cache", max_bytes=LIMIT)
    yield cache
    cache.close()


def test_open_values_stay_within_the_limit(tmp_path: Path, cache: DirectoryCache) -> None:
    values = []
    for number in range(50):
        data = bytes([number]) * SIZE
        cache.put(f"key-{number}", data)
        if cache.has(f"key-{number}"):
            values.append((open_value(cache, f"key-{number}"), data))
        assert bytes_of_descriptors(tmp_path / "cache") <= LIMIT + 65_536
    assert len(values) >= 9
    assert all(value.read(0, SIZE) == data for value, data in values)
    statistics = cache.statistics()
    assert statistics is not None
    assert statistics.bytes >= len(values) * SIZE
    for value, _ in values:
        value.close()
    cache.put("last", b"x" * SIZE)
    assert cache.has("last"), "closed values make room"


def test_values_that_another_process_has_open_are_not_evicted(tmp_path: Path, cache: DirectoryCache) -> None:
    other = DirectoryCache(tmp_path / "cache", max_bytes=LIMIT)
    other.put("open", b"o" * SIZE)
    value = open_value(other, "open")
    for number in range(50):
        cache.put(f"key-{number}", b"x" * SIZE)
    assert cache.has("open")
    assert cache.has("key-49")
    value.close()
    for number in range(50, 100):
        cache.put(f"key-{number}", b"x" * SIZE)
    assert not cache.has("open")
    other.close()


def test_a_removed_value_that_is_open_stays_readable(cache: DirectoryCache) -> None:
    cache.put("key", b"o" * SIZE)
    value = open_value(cache, "key")
    cache.remove("key")
    assert cache.open("key") is None
    assert value.read(0, SIZE) == b"o" * SIZE
    value.close()


WRITER = """
import os, sys
from pathlib import Path
from lazylayer_cache_dir import DirectoryCache
cache = DirectoryCache(Path(sys.argv[1]), max_bytes=1 << 30)
print(os.getpid(), flush=True)
number = 0
while True:
    number += 1
    cache.put(f"key-{number % 4}", os.urandom(8_000_000 + number))
"""


def unfinished(directory: Path) -> list[Path]:
    return list((directory / "v1" / "new").glob("*"))


def kill_while_writing(directory: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, directory], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    writer.stdout.readline()
    while not any(path.stat().st_size for path in unfinished(directory) if path.exists()):
        time.sleep(0.001)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()


def test_files_of_a_killed_process_are_removed_at_the_next_start(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    for _ in range(10):
        kill_while_writing(directory)
        if unfinished(directory):
            break
    assert unfinished(directory), "no kill hit a write"
    DirectoryCache(directory, max_bytes=LIMIT).close()
    assert unfinished(directory) == []


def test_files_of_a_living_process_are_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, directory], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    writer.stdout.readline()
    for _ in range(200):
        DirectoryCache(directory, max_bytes=1 << 30).close()
    assert writer.poll() is None
    cache = DirectoryCache(directory, max_bytes=1 << 30)
    while not all(cache.has(f"key-{number}") for number in range(4)):
        time.sleep(0.01)
    writer.kill()
    writer.wait()
    writer.stdout.close()
    cache.close()


def test_files_of_a_killed_process_are_removed_when_room_is_made(tmp_path: Path, cache: DirectoryCache) -> None:
    cache.put("key", b"x" * SIZE)
    (tmp_path / "cache" / "v1" / "new" / "1-1").write_bytes(b"left behind")
    for number in range(20):
        cache.put(f"key-{number}", b"x" * SIZE)
    assert unfinished(tmp_path / "cache") == []


HOLD = """
import sys
from pathlib import Path
from lazylayer_cache_dir import DirectoryCache
cache = DirectoryCache(Path(sys.argv[1]), max_bytes=int(sys.argv[2]))
for number in range(20):
    cache.put(f"daemon-{number}", bytes(100_000))
print("ready", flush=True)
sys.stdin.read()
"""


def values_in(directory: Path) -> int:
    return len(list(directory.rglob("chunks-daemon-*")))


def test_a_smaller_limit_shrinks_nothing_while_a_larger_one_is_in_use(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    command = [sys.executable, "-c", HOLD, str(directory), str(4 * LIMIT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"ready\n"
        small = DirectoryCache(directory, max_bytes=300_000)
        small.put("mine", bytes(SIZE))
        assert values_in(directory) == 20
        assert small.get("mine") == bytes(SIZE)
        statistics = small.statistics()
        assert statistics is not None
        assert statistics.limit == 4 * LIMIT
        daemon.kill()  # without a chance to withdraw its limit
        daemon.wait()
        small.put("more", bytes(SIZE))
        statistics = small.statistics()
        assert statistics is not None
        assert (statistics.limit, statistics.bytes <= 300_000) == (300_000, True)
        assert len(list((directory / "v1" / "limits").iterdir())) == 1
        small.close()
    assert list((directory / "v1" / "limits").iterdir()) == []
