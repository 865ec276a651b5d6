"""The kit for caches passes two that are right, and each of many wrong ones fails the check that is for it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from lazylayer_testing.cache import CacheConformance, MakeCache, PersistentCacheConformance
from lazylayer_testing.cache.values import OpenedCaches

from .caches import BROKEN, PlainCache
from .file_caches import BROKEN_PERSISTENT, FileCache


class TestPlainCache(CacheConformance):
    @pytest.fixture
    def make_cache(self) -> MakeCache:
        return PlainCache


class TestFileCache(PersistentCacheConformance):
    @pytest.fixture
    def make_cache(self, tmp_path: Path) -> MakeCache:
        return partial(FileCache, tmp_path / "cache")

    @pytest.fixture
    def stored_in(self, tmp_path: Path) -> Path:
        return tmp_path / "cache"


def runs_of(check: Any) -> Iterator[dict[str, Any]]:
    """The parameters of each run of a check."""
    marks = [mark.args for mark in getattr(check, "pytestmark", []) if mark.name == "parametrize"]
    for values in product(*(each for _, each in marks)):
        yield {name: value for (name, _), value in zip(marks, values, strict=True)}


def run_check(kit: CacheConformance, name: str, make_cache: MakeCache, stored_in: Path, **parameters: Any) -> None:
    check = getattr(kit, name)
    caches = OpenedCaches(make_cache)
    offered = {"make_cache": make_cache, "caches": caches, "stored_in": stored_in, "limited": True, **parameters}
    wanted = inspect.signature(check).parameters
    if "cache" in wanted:
        offered["cache"] = caches.open()
    try:
        check(**{each: offered[each] for each in wanted})
    finally:
        caches.close_all()


def failed_runs(kit: CacheConformance, name: str, make_cache: MakeCache, directory: Path) -> list[dict[str, Any]]:
    failed = []
    for parameters in runs_of(getattr(kit, name)):
        try:
            run_check(kit, name, make_cache, directory, **parameters)
        except (Exception, pytest.fail.Exception):
            failed.append(parameters)
    return failed


@pytest.mark.parametrize(("broken", "check"), BROKEN.items(), ids=lambda each: getattr(each, "__name__", each))
def test_broken_cache_is_caught(broken: type[PlainCache], check: str, tmp_path: Path) -> None:
    assert failed_runs(CacheConformance(), check, broken, tmp_path)
    assert not failed_runs(CacheConformance(), check, PlainCache, tmp_path)


@pytest.mark.parametrize(
    ("broken", "check"), BROKEN_PERSISTENT.items(), ids=lambda each: getattr(each, "__name__", each)
)
def test_broken_persistent_cache_is_caught(broken: type[FileCache], check: str, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    assert failed_runs(PersistentCacheConformance(), check, partial(broken, directory), directory)


def test_each_check_was_seen_to_fail() -> None:
    checks = {name for name in dir(PersistentCacheConformance) if name.startswith("test_")}
    seen = {*BROKEN.values(), *BROKEN_PERSISTENT.values()}
    assert checks - seen == {"test_open_value_survives_eviction"}, "it needs the same mistake as with removal"


def test_author_who_forgot_make_cache_is_told() -> None:
    class TestMine(CacheConformance):
        pass

    with pytest.raises(NotImplementedError, match="TestMine must override the fixture make_cache"):
        inspect.unwrap(TestMine.make_cache)(TestMine())


def test_cache_that_cannot_go_to_another_process_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must be picklable"):
        run_check(
            PersistentCacheConformance(),
            "test_processes_share_the_store",
            lambda *, max_bytes: FileCache(tmp_path, max_bytes=max_bytes),
            tmp_path,
        )
