"""The pieces of work whose system calls go wrong: each prepares, and yields what works and says what came of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from lazylayer.api.cache import Cache
from lazylayer.api.oci import parse_reference
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.program import Program
from lazylayer_frontend_erofs.image import Image
from lazylayer_frontend_erofs.localimages import LocalImages
from lazylayer_frontend_erofs.writer import write_metadata
from lazylayer_snapshotter_containerd.snapshotter import Snapshotter
from lazylayer_snapshotter_containerd.store import Kind
from lazylayer_testing.frontend.trees import access_tree

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


@contextmanager
def image(directory: Path, reference: str) -> Iterator[Callable[[], str]]:
    """Write a local image of a tree, and open it: what is opened is right, and nothing half-written stays."""
    del reference
    tree = access_tree(bytes(range(256)) * 4000)
    wanted = Image(tree, write_metadata(tree.tree))
    size = wanted.size
    right = b"".join(bytes(part) for at in range(0, size, 1 << 20) for part in wanted.read(at, 1 << 20))[:size]

    def work() -> str:
        images = LocalImages(directory / "root", 1 << 30, lambda: False)
        for _ in range(2):
            opened = images.open("it", wanted)
            if opened is not None:
                with os.fdopen(opened, "rb") as file:
                    if file.read() != right:
                        return "a local image has wrong bytes"
                left = {each.suffix for each in images.directory.iterdir()}
                return "whole or missing" if left == {".erofs", ".json"} else f"files stay: {left}"
            if not images.make("it", wanted):
                return "no local image is made"
        return "a local image that was made is not opened"

    yield work


@contextmanager
def snapshots(directory: Path, reference: str) -> Iterator[Callable[[], str]]:
    """Make, commit and remove snapshots: what was answered is so, and the rest is all or nothing."""
    del reference
    program = _program(directory)
    filesystem = Filesystem(program)

    def work() -> str:
        snapshotter = Snapshotter(directory / "root" / "snapshotter", filesystem, program.hooks.formats())
        try:
            return _use_snapshots(snapshotter, directory / "answered")
        finally:
            snapshotter.close()

    yield work
    filesystem.close()
    program.close()


class _Step(NamedTuple):
    """A change, and what there is after it: names, each with kind and parent."""

    change: Callable[[Snapshotter], object]
    adds: dict[str, tuple[Kind, str]]
    removes: str = ""


_SCOPE = "torture"
_STEPS = (
    _Step(lambda it: it.prepare(_SCOPE, "a", "", {}), {"a": (Kind.ACTIVE, "")}),
    _Step(lambda it: it.commit(_SCOPE, "a", "A", {}), {"A": (Kind.COMMITTED, "")}, "a"),
    _Step(lambda it: it.prepare(_SCOPE, "b", "A", {}), {"b": (Kind.ACTIVE, "A")}),
    _Step(lambda it: it.commit(_SCOPE, "b", "B", {"x": "y"}), {"B": (Kind.COMMITTED, "A")}, "b"),
    _Step(lambda it: it.view(_SCOPE, "v", "B", {}), {"v": (Kind.VIEW, "B")}),
    _Step(lambda it: it.remove(_SCOPE, "v"), {}, "v"),
    _Step(lambda it: it.remove(_SCOPE, "B"), {}, "B"),
    _Step(lambda it: it.cleanup(), {}),
)


def _after(state: dict[str, tuple[Kind, str]], step: _Step) -> dict[str, tuple[Kind, str]]:
    return {name: value for name, value in {**state, **step.adds}.items() if name != step.removes}


_STATES = list(accumulate(_STEPS, _after, initial=dict[str, tuple[Kind, str]]()))


def _use_snapshots(snapshotter: Snapshotter, answered: Path) -> str:
    """Compare what is there with what was answered, begin anew, and go through all steps."""
    if answered.exists():
        count = answered.stat().st_size
        if problem := _differs(snapshotter, _STATES[count : count + 2]):
            return f"after {count} answers {problem}"
        answered.unlink()
    for each in reversed(snapshotter.find(_SCOPE)):
        snapshotter.remove(_SCOPE, each.name)
    snapshotter.cleanup()
    if names := snapshotter.directories.names():
        return f"directories stay: {names}"
    with answered.open("wb", buffering=0) as file:
        for step in _STEPS:
            step.change(snapshotter)
            file.write(b".")
    names = snapshotter.directories.names()
    if problem := _differs(snapshotter, _STATES[-1:]):
        return problem
    return "whole or missing" if len(names) == len(_STATES[-1]) else f"directories stay: {names}"


def _differs(snapshotter: Snapshotter, allowed: list[dict[str, tuple[Kind, str]]]) -> str:
    there = snapshotter.find(_SCOPE)
    state = {each.name: (each.kind, each.parent) for each in there}
    if state not in allowed:
        return f"there is {state}"
    lost = {str(each.id) for each in there} - set(snapshotter.directories.names())
    return f"directories are missing: {lost}" if lost else ""


WORK = {"read": read, "commit": commit, "collect": collect, "image": image, "snapshots": snapshots}
