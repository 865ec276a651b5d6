"""The pieces of work whose system calls go wrong: each prepares, and yields what works and says what came of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lazylayer.api.cache import Cache
from lazylayer.api.oci import parse_reference
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.program import Program

__all__ = ["WORK"]

_VALUE = bytes(range(256)) * 400


def _program(directory: Path, *overrides: str) -> Program:
    return Program.load(
        overrides=[
            f"root={directory}/root",
            f"run={directory}/run",
            "log.level=ERROR",
            "background.enabled=false",
            "prefetch.enabled=false",
            *overrides,
        ]
    )


@contextmanager
def read(directory: Path, image: str) -> Iterator[Callable[[], str]]:
    """Open an image, cold, and read a file of it, through the cache on disk."""
    program = _program(directory)
    filesystem = Filesystem(program)

    def work() -> str:
        opened = filesystem.open_image(parse_reference(image))
        found = opened.find(b"/data")
        assert found is not None
        data = b"".join(found.read(at, 100_000) for at in range(0, found.entry.size, 100_000))
        opened.close()
        return hashlib.sha256(data).hexdigest()

    yield work
    filesystem.close()
    program.close()


@contextmanager
def commit(directory: Path, image: str) -> Iterator[Callable[[], str]]:
    """Put values into the cache on disk and read them back: each is whole, or missing."""
    del image
    program = _program(directory)
    with _cache(program) as cache:

        def work() -> str:
            for number in range(5):
                cache.put(f"value{number}", _VALUE)
            return _judge(cache, 5)

        yield work
    program.close()


@contextmanager
def collect(directory: Path, image: str) -> Iterator[Callable[[], str]]:
    """Put more into the cache on disk than it may hold, so that it evicts."""
    del image
    program = _program(directory, f"plugin.cache_dir.max_bytes={4 * len(_VALUE)}")
    with _cache(program) as cache:

        def work() -> str:
            for number in range(12):
                cache.put(f"value{number}", _VALUE)
            return _judge(cache, 12)

        yield work
    program.close()


@contextmanager
def _cache(program: Program) -> Iterator[Cache]:
    layers = Filesystem(program)
    cache = program.hooks.of("cache_dir").open_cache("chunks")
    yield cache
    cache.close()
    layers.close()


def _judge(cache: Cache, count: int) -> str:
    found = [cache.get(f"value{number}") for number in range(count)]
    if any(each not in (None, _VALUE) for each in found):
        return "a value is not what was put"
    return "whole or missing"


WORK = {"read": read, "commit": commit, "collect": collect}
