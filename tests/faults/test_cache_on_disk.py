"""What goes wrong under a cache on disk: no room, killed writers, changed files. Never wrong bytes, never an error."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from loguru import logger

from e2e.command_line import CommandLine
from lazylayer.api.oci import parse_reference
from lazylayer.layers.image import Image, open_image, resolve_image
from lazylayer.layers.store import LayerStore
from lazylayer.program import Program
from lazylayer_cache_dir import DirectoryCache
from lazylayer_testing.cache.process import CacheProcess

SIZE = 60_000
MEGABYTE = 1024 * 1024


def value_of(key: str, size: int = SIZE) -> bytes:
    return random.Random(key).randbytes(size)


def values_in(directory: Path) -> list[Path]:
    return [file for file in directory.glob("v1/??/*") if not file.name.startswith("NEW-")]


def bytes_in(directory: Path) -> int:
    return sum((file.stat().st_size + 4095) // 4096 * 4096 for file in values_in(directory))


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    logger.enable("lazylayer")
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)
    logger.disable("lazylayer")


# --- full disks --------------------------------------------------------------------------------------


@contextmanager
def small_tmpfs(directory: Path) -> Iterator[Path]:
    yield from mounted(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none"], directory)


@contextmanager
def few_inodes(directory: Path) -> Iterator[Path]:
    yield from mounted(["mount", "-t", "tmpfs", "-o", "size=50m,nr_inodes=400,mode=700", "none"], directory)


@contextmanager
def small_ext4(directory: Path) -> Iterator[Path]:
    image = directory / "image"
    with image.open("wb") as file:
        file.truncate(4 * MEGABYTE)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image], check=True)
    yield from mounted(["mount", "-o", "loop", str(image)], directory)


def mounted(command: list[str], directory: Path) -> Iterator[Path]:
    mountpoint = directory / "disk"
    mountpoint.mkdir()
    done = subprocess.run([*command, mountpoint], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=True)


@pytest.fixture(params=[small_tmpfs, few_inodes, small_ext4], ids=lambda each: each.__name__)
def small_disk(request: pytest.FixtureRequest, as_root: None, tmp_path: Path) -> Iterator[Path]:
    with request.param(tmp_path) as disk:
        yield disk


def fill(disk: Path) -> None:
    """Leaves no room at all on a disk."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (65_536, 512, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def test_full_disk_is_a_miss_and_new_values_find_room(small_disk: Path, warnings: list[str]) -> None:
    cache = DirectoryCache(small_disk / "cache", max_bytes=1000 * MEGABYTE)
    keys = [f"key-{number}" for number in range(300)]
    for key in keys:
        cache.put(key, value_of(key))
    found = {key: cache.get(key) for key in keys}
    cache.close()
    assert all(data in (None, value_of(key)) for key, data in found.items())
    kept = [number for number, key in enumerate(keys) if found[key] is not None]
    assert len(kept) >= 5
    assert kept[-1] > 280, "what was put last is there, since older values made room"
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]


def test_cache_on_a_disk_that_others_filled(small_disk: Path, warnings: list[str]) -> None:
    (small_disk / "cache").mkdir(0o700)
    fill(small_disk)
    cache = DirectoryCache(small_disk / "cache", max_bytes=1000 * MEGABYTE)
    cache.put("key", value_of("key"))
    assert cache.get("key") in (None, value_of("key"))
    assert cache.open("missing") is None
    cache.remove("missing")
    (small_disk / "filler").unlink()
    cache.put("other", value_of("other"))
    assert cache.get("other") == value_of("other")
    cache.close()


def test_image_is_read_with_its_cache_on_a_full_disk(as_root: None, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(value_of("file", 3 * MEGABYTE))
    command_line = CommandLine(tmp_path)
    reference = f"oci:{tmp_path}/layout:latest"
    command_line.run("convert", f"dir:{tree}", reference)
    with small_tmpfs(tmp_path) as disk:
        (disk / "cache").mkdir(0o700)
        fill(disk)
        settings = {"plugin.cache_dir.directory": f"{disk}/cache"}
        done = command_line.run("cat", reference, "/file", settings=settings)
        assert done.stdout == (tree / "file").read_bytes()
        assert done.stderr.decode().count("No space left on device") <= 2, "once for chunks and once for ranges"


# --- killed writers ----------------------------------------------------------------------------------


def test_killed_writers_under_eviction_leave_a_sound_cache(tmp_path: Path) -> None:
    """Two processes put and remove while the cache is at its limit; one is killed again and again."""
    make_cache = partial(DirectoryCache, tmp_path / "cache")
    values = {f"key-{number}": value_of(f"key-{number}") for number in range(30)}
    choose = random.Random(1)
    with CacheProcess(make_cache, MEGABYTE) as survivor:
        survivor.put_and_remove_for_ever(values)
        for _ in range(6):
            with CacheProcess(make_cache, MEGABYTE) as victim:
                victim.put_and_remove_for_ever(values)
                cache = make_cache(max_bytes=MEGABYTE)
                for _ in range(choose.randrange(20, 200)):
                    key = f"key-{choose.randrange(30)}"
                    assert cache.get(key) in (None, values[key])
                victim.kill()
                cache.close()
        survivor.kill()
    cache = make_cache(max_bytes=MEGABYTE)
    statistics = cache.statistics()
    assert statistics is not None
    assert statistics.bytes >= bytes_in(tmp_path / "cache"), "counted too much after a kill, but never too little"
    for key, data in values.items():
        assert cache.get(key) in (None, data)
        cache.put(key, data)
    assert bytes_in(tmp_path / "cache") <= MEGABYTE
    statistics = cache.statistics()
    assert statistics is not None
    assert (statistics.bytes, statistics.entries) == (bytes_in(tmp_path / "cache"), len(values_in(tmp_path / "cache")))
    cache.close()


FILLING = """
import random, sys
from pathlib import Path
from lazylayer_cache_dir import DirectoryCache

directory, seed = Path(sys.argv[1]), int(sys.argv[2])
cache = DirectoryCache(directory, max_bytes=2 * 1024 * 1024)
choose = random.Random(seed)
for _ in range(1500):
    key = f"key-{choose.randrange(80)}"
    data = random.Random(key).randbytes(60_000)
    assert cache.get(key) in (None, data), key
    value = cache.open(key)
    if value is None:
        cache.put(key, data)
    else:
        assert value.read(100, 1000) == data[100:1100]
        value.close()
cache.close()
"""


def test_processes_share_a_directory_under_eviction(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FILLING, str(tmp_path / "cache")]
    running = [subprocess.Popen([*command, str(seed)], stderr=subprocess.PIPE, text=True) for seed in range(3)]
    for each in running:
        _, said = each.communicate(timeout=240)
        assert (each.returncode, said) == (0, "")
    cache = DirectoryCache(tmp_path / "cache", max_bytes=2 * MEGABYTE)
    statistics = cache.statistics()
    assert statistics is not None
    assert statistics.bytes == bytes_in(tmp_path / "cache")
    assert statistics.entries == len(values_in(tmp_path / "cache"))
    assert MEGABYTE < statistics.bytes <= 2 * MEGABYTE
    cache.close()


# --- changed files under live readers ------------------------------------------------------------------


def overwrite(file: Path, choose: random.Random) -> None:
    with file.open("r+b") as opened:
        opened.seek(choose.randrange(max(1, file.stat().st_size)))
        opened.write(choose.randbytes(choose.randrange(1, 5000)))


def truncate(file: Path, choose: random.Random) -> None:
    os.truncate(file, choose.randrange(file.stat().st_size + 100))


def delete(file: Path, choose: random.Random) -> None:
    file.unlink()


def exchange(file: Path, choose: random.Random) -> None:
    # Files that are being written are renamed at any time.
    other = choose.choice([each for each in file.parent.parent.glob("??/*") if not each.name.startswith("NEW-")])
    other.rename(file)


DAMAGES: list[Callable[[Path, random.Random], None]] = [overwrite, truncate, delete, exchange]


class LiveReader:
    """A program that has an image open, and one file of it that is read."""

    def __init__(self, directory: Path, reference: str) -> None:
        overrides = [f"root={directory}/root", f"run={directory}/run", "background.enabled=false"]
        self.cache = directory / "root" / "cache"
        self.program = Program.load(config=None, overrides=overrides)
        self.store = LayerStore(self.program.settings, self.program.hooks)
        resolved = resolve_image(self.program.hooks, self.program.settings, parse_reference(reference))
        self.image: Image = open_image(self.store, resolved)
        (self.layer,) = self.image.layers
        entry = self.layer.tree.lookup(b"file")
        assert entry is not None
        self.entry = entry

    def read(self, offset: int, size: int) -> bytes:
        return self.layer.read(self.entry, offset, size)

    def close(self) -> None:
        self.image.close()
        self.store.close()
        self.program.close()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[LiveReader]:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(value_of("file", 4 * MEGABYTE))
    reference = f"oci:{tmp_path}/layout:latest"
    CommandLine(tmp_path).run("convert", "--chunk-size", "200000", f"dir:{tree}", reference)
    reader = LiveReader(tmp_path, reference)
    yield reader
    reader.close()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_file_changed_between_two_reads(reader: LiveReader, damage: Callable[[Path, random.Random], None]) -> None:
    data = value_of("file", 4 * MEGABYTE)
    choose = random.Random(1)
    assert reader.read(0, len(data)) == data
    assert any(file.name.startswith("chunks-") for file in values_in(reader.cache))
    for _ in range(3):
        for file in values_in(reader.cache):
            if file.exists():
                damage(file, choose)
        assert reader.read(0, len(data)) == data


def test_files_changed_all_the_time(reader: LiveReader) -> None:
    """A file is left alone for the tick in which it was written: older kernels give both times as one."""
    data = value_of("file", 4 * MEGABYTE)
    assert reader.read(0, len(data)) == data
    done = threading.Event()
    damaged_enough = threading.Event()

    def damage_until_done() -> None:
        choose = random.Random(2)
        damaged = 0
        while not done.is_set():
            files = values_in(reader.cache)
            if files:
                with suppress(FileNotFoundError, ValueError):
                    file = choose.choice(files)
                    if time.time() - file.stat().st_mtime > 0.02:
                        choose.choice(DAMAGES)(file, choose)
                        damaged += 1
            if damaged > 10:
                damaged_enough.set()

    def read_often(seed: int) -> int:
        choose = random.Random(seed)
        wrong = reads = 0
        while reads < 300 or not damaged_enough.is_set():
            reads += 1
            offset, size = choose.randrange(len(data)), choose.randrange(1, 300_000)
            wrong += reader.read(offset, size) != data[offset : offset + size]
        return wrong

    with ThreadPoolExecutor(5) as pool:
        damaging = pool.submit(damage_until_done)
        try:
            wrong = list(pool.map(read_often, range(4)))
        finally:
            done.set()
        damaging.result()
    assert wrong == [0, 0, 0, 0]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_files_changed_between_two_processes(
    reader: LiveReader, tmp_path: Path, damage: Callable[[Path, random.Random], None]
) -> None:
    """Ranges too: the next process opens the layer with its damaged table of contents in the cache."""
    data = value_of("file", 4 * MEGABYTE)
    assert reader.read(0, len(data)) == data
    choose = random.Random(3)
    for file in values_in(reader.cache):
        if file.exists():
            damage(file, choose)
    again = LiveReader(tmp_path, f"oci:{tmp_path}/layout:latest")
    try:
        assert again.read(0, len(data)) == data
    finally:
        again.close()
