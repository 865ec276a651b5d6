from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from loguru import logger

from lazylayer_cache_dir import DirectoryCache
from lazylayer_cache_dir.directory import SMALL, default_limit
from lazylayer_cache_dir.eviction import Evictor
from lazylayer_testing.cache.process import CacheProcess

SIZE = 60_000
LIMIT = 1024 * 1024


def value_of(key: str, size: int = SIZE) -> bytes:
    return random.Random(key).randbytes(size)


def files_in(directory: Path) -> list[Path]:
    files = [file for file in directory.rglob("*") if file.is_file() and file.name != "usage"]
    return [file for file in files if file.parent.name != "limits"]


def file_of(directory: Path, key: str) -> Path:
    (file,) = directory.rglob(f"chunks-{key}")
    return file


def bytes_on_disk(directory: Path) -> int:
    return sum((file.stat().st_size + 4095) // 4096 * 4096 for file in files_in(directory))


def held(cache: DirectoryCache) -> tuple[int, int]:
    statistics = cache.statistics()
    assert statistics is not None
    return statistics.bytes, statistics.entries


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "a" / "cache"


@pytest.fixture
def cache(directory: Path) -> Iterator[DirectoryCache]:
    cache = DirectoryCache(directory, max_bytes=LIMIT)
    yield cache
    cache.close()


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    logger.enable("lazylayer_cache_dir")  # a test before may have disabled it
    sink = logger.add(lambda message: lines.append(str(message)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


# --- whose it is -------------------------------------------------------------------------------------


def test_all_is_for_the_owner_only(directory: Path, cache: DirectoryCache) -> None:
    previous = os.umask(0)
    try:
        cache.put("key", value_of("key"))
    finally:
        os.umask(previous)
    made = [directory.parent, directory, *directory.rglob("*")]
    assert len(made) == 9
    assert all(stat.S_IMODE(each.stat().st_mode) == (0o700 if each.is_dir() else 0o600) for each in made)


def test_directory_that_others_may_enter_is_refused(directory: Path, cache: DirectoryCache) -> None:
    (directory / "v1").chmod(0o755)
    with pytest.raises(PermissionError, match="chmod it to 700"):
        DirectoryCache(directory, max_bytes=LIMIT)


def test_link_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(0o700)
    (tmp_path / "v1").symlink_to("elsewhere")
    with pytest.raises(NotADirectoryError):
        DirectoryCache(tmp_path, max_bytes=LIMIT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_directory_of_another_user_is_refused(directory: Path, cache: DirectoryCache) -> None:
    os.chown(directory / "v1", 12345, 12345)
    with pytest.raises(PermissionError, match="another user"):
        DirectoryCache(directory, max_bytes=LIMIT)


@pytest.mark.parametrize("key", ["", "..", "a/b", "A", "a" * 129, "a\n", "a\0"])
def test_what_is_no_key_is_refused(cache: DirectoryCache, key: str) -> None:
    if key == "..":  # a key that the contract excludes and that does no harm here
        assert cache.get(key) is None
        return
    for call in (cache.get, cache.open, cache.has, cache.remove):
        with pytest.raises(ValueError, match="is not the key"):
            call(key)


# --- damage ------------------------------------------------------------------------------------------


def test_open_value_notices_that_its_file_is_changed(directory: Path, cache: DirectoryCache) -> None:
    cache.put("key", value_of("key"))
    value = cache.open("key")
    assert value is not None
    assert value.read(0, 100) == value_of("key")[:100]
    with file_of(directory, "key").open("r+b") as file:
        file.seek(50_000)
        file.write(b"damage")
    with pytest.raises(OSError, match="was changed"):
        value.read(0, 100)
    value.close()
    assert cache.open("key") is None
    assert not cache.has("key")


def test_use_by_others_is_no_change(directory: Path, cache: DirectoryCache) -> None:
    cache.put("key", value_of("key"))
    value = cache.open("key")
    assert value is not None
    assert cache.get("key") == value_of("key")
    other = DirectoryCache(directory, max_bytes=LIMIT)
    assert other.get("key") == value_of("key")
    other.close()
    assert value.read(0, SIZE) == value_of("key")
    value.close()


def test_file_under_another_name_is_not_believed(directory: Path, cache: DirectoryCache) -> None:
    cache.put("one", value_of("one"))
    cache.put("other", value_of("other"))
    one, other = file_of(directory, "one"), file_of(directory, "other")
    one.rename(other)
    assert cache.get("other") is None
    assert cache.open("other") is None


def test_torn_file_is_replaced_by_put(directory: Path, cache: DirectoryCache) -> None:
    cache.put("key", value_of("key"))
    os.truncate(file_of(directory, "key"), 1000)
    cache.put("key", value_of("key"))
    assert cache.get("key") == value_of("key")
    cache.remove("key")
    assert held(cache)[1] == 0


def test_damage_is_told_once(directory: Path, cache: DirectoryCache, warnings: list[str]) -> None:
    for number in range(5):
        cache.put(f"key-{number}", value_of("key"))
    for file in files_in(directory):
        file.write_bytes(b"damage")
    assert [cache.get(f"key-{number}") for number in range(5)] == [None] * 5
    assert len(warnings) == 1
    assert "damaged" in warnings[0]


def test_file_that_cannot_be_read_is_a_miss(directory: Path, cache: DirectoryCache, warnings: list[str]) -> None:
    cache.put("key", value_of("key"))
    file = file_of(directory, "key")
    file.unlink()
    file.mkdir()  # opens, and then fails with EISDIR
    assert cache.get("key") is None
    assert cache.open("key") is None
    cache.put("key", value_of("key"))
    cache.put("other", value_of("other"))
    assert cache.get("other") == value_of("other")
    assert len(warnings) == 1


# --- counting ----------------------------------------------------------------------------------------


def test_statistics_say_what_is_on_disk(directory: Path, cache: DirectoryCache) -> None:
    for number, size in enumerate((0, 1, 4080, 4081, 100_000)):
        cache.put(f"key-{number}", value_of("key", size))
    assert held(cache) == (4096 * 4 + 8192 - 4096 + 102_400, 5)
    assert held(cache)[0] == bytes_on_disk(directory)


def test_counters_are_exact_after_all_kinds_of_concurrency(directory: Path) -> None:
    caches = [DirectoryCache(directory, max_bytes=LIMIT) for _ in range(2)]

    def work(thread: int) -> None:
        choose = random.Random(thread)
        cache = caches[thread % 2]
        for _ in range(150):
            key = f"key-{choose.randrange(40)}"
            if choose.random() < 0.2:
                cache.remove(key)
            else:
                cache.put(key, value_of(key, len(key) * 5000))
            cache.get(key)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert held(caches[0]) == (bytes_on_disk(directory), len(files_in(directory)))
    assert bytes_on_disk(directory) <= LIMIT
    for cache in caches:
        cache.close()


@pytest.mark.parametrize("damage", ["missing", "short", "wrong", "negative"])
def test_lost_counters_are_counted_again(directory: Path, cache: DirectoryCache, damage: str) -> None:
    for number in range(5):
        cache.put(f"key-{number}", value_of(f"key-{number}"))
    before = held(cache)
    cache.close()
    usage = directory / "v1" / "usage"
    match damage:
        case "missing":
            usage.unlink()
        case "short":
            os.truncate(usage, 100)
        case "wrong":
            usage.write_bytes(usage.read_bytes()[:8] + b"\x01" + usage.read_bytes()[9:])
        case "negative":
            usage.write_bytes(usage.read_bytes()[:8] + b"\xff" * (len(usage.read_bytes()) - 8))
    again = DirectoryCache(directory, max_bytes=LIMIT)
    assert held(again) == before
    again.close()


def test_counters_that_say_too_much_evict_nothing(directory: Path, cache: DirectoryCache) -> None:
    cache.put("key", value_of("key"))
    usage = directory / "v1" / "usage"
    data = bytearray(usage.read_bytes())
    data[8:16] = (10 * LIMIT).to_bytes(8, "little")
    usage.write_bytes(data)
    cache.put("other", value_of("other"))
    assert (cache.get("key"), cache.get("other")) == (value_of("key"), value_of("other"))
    assert held(cache) == (bytes_on_disk(directory), 2)


def test_truncated_counters_do_no_harm(directory: Path, cache: DirectoryCache, warnings: list[str]) -> None:
    cache.put("key", value_of("key"))
    os.truncate(directory / "v1" / "usage", 10)
    cache.put("other", value_of("other"))
    cache.remove("other")
    assert cache.statistics() is None
    assert cache.get("key") == value_of("key")
    assert len(warnings) == 1


def test_purposes_are_kept_apart_and_share_the_limit(directory: Path, cache: DirectoryCache) -> None:
    ranges = DirectoryCache(directory, max_bytes=LIMIT, purpose="ranges")
    cache.put("key", b"chunk")
    ranges.put("key", b"range")
    assert (cache.get("key"), ranges.get("key")) == (b"chunk", b"range")
    for number in range(40):
        ranges.put(f"filler-{number}", value_of("filler"))
    assert cache.get("key") is None
    assert held(cache) == held(ranges)
    ranges.close()


def test_directory_that_was_emptied_by_hand_is_filled_again(directory: Path, cache: DirectoryCache) -> None:
    for number in range(40):
        cache.put(f"key-{number}", value_of("key"))
    for file in files_in(directory):
        file.unlink()
    for number in range(40):
        cache.put(f"key-{number}", value_of("key"))
    assert held(cache) == (bytes_on_disk(directory), len(files_in(directory)))
    assert held(cache)[1] >= 14


# --- eviction ----------------------------------------------------------------------------------------


def test_order_of_use_survives_a_restart(directory: Path, cache: DirectoryCache) -> None:
    keys = [f"key-{number}" for number in range(16)]
    for key in keys:
        cache.put(key, value_of(key))
    for key in keys[:4]:
        assert cache.get(key) is not None
    cache.close()
    again = DirectoryCache(directory, max_bytes=LIMIT)
    again.put("another", value_of("another"))
    again.put("one-more", value_of("one-more"))
    kept = [again.has(key) for key in keys]
    assert kept[:4] == [True] * 4
    assert kept[4] is False
    assert kept[-1] is True
    again.close()


def test_use_by_another_process_counts(directory: Path, cache: DirectoryCache) -> None:
    cache.put("used", value_of("used"))
    with CacheProcess(partial(DirectoryCache, directory), LIMIT) as other:
        for number in range(60):
            cache.put(f"filler-{number}", value_of("filler"))
            assert other.get("used") == value_of("used"), number


def test_one_listing_serves_many_evictions(
    directory: Path, cache: DirectoryCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings: list[int] = []
    real = Evictor._list

    def count_and_list(self: Evictor) -> None:
        listings.append(1)
        real(self)

    monkeypatch.setattr(Evictor, "_list", count_and_list)
    for number in range(1000):
        cache.put(f"key-{number}", value_of("key", 5000))
    assert held(cache)[1] > 100
    assert len(listings) <= 1000 / 100 + 1


def test_evicts_to_a_low_water_mark(directory: Path, cache: DirectoryCache) -> None:
    number = 0
    before = (0, 0)
    while held(cache) >= before:
        before = held(cache)
        cache.put(f"key-{number}", value_of("key"))
        number += 1
    assert before[0] > LIMIT - 65_536
    assert LIMIT * 0.8 < held(cache)[0] <= LIMIT * 0.9 + 61_440


# --- the rest ----------------------------------------------------------------------------------------


def test_closed_cache_keeps_nothing_and_is_silent(directory: Path, cache: DirectoryCache, warnings: list[str]) -> None:
    cache.put("key", value_of("key"))
    value = cache.open("key")
    assert value is not None
    cache.close()
    cache.put("other", value_of("other"))
    cache.remove("key")
    assert cache.statistics() is None
    assert value.read(0, SIZE) == value_of("key")
    value.close()
    assert not cache.has("other")
    assert not warnings


def test_no_descriptor_is_left_open(directory: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    cache = DirectoryCache(directory, max_bytes=LIMIT)
    for size in (100, SMALL, SMALL + 1, SIZE):
        for number in range(20):
            cache.put(f"key-{size}-{number}", value_of("key", size))
            cache.get(f"key-{size}-{number}")
            value = cache.open(f"key-{size}-{number}")
            assert value is not None
            if number % 2:
                value.close()
            del value
    for file in files_in(directory)[::2]:
        file.write_bytes(b"damage")
    for size in (100, SMALL, SMALL + 1, SIZE):
        for number in range(20):
            cache.get(f"key-{size}-{number}")
            cache.open(f"key-{size}-{number}")
    cache.close()
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_default_limit_is_a_part_of_the_file_system(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert 0 < default_limit(tmp_path / "not" / "there") <= min(status.f_blocks * status.f_frsize / 10, 50 * 1024**3)
