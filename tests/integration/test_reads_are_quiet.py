"""Reads call no hook, ask nothing of the configuration, and log nothing at INFO: counted.

What is decided once per mount stays decided; what happens per read is plain calls of plain objects.
"""

from __future__ import annotations

import io
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from loguru import logger

from lazylayer import hookimpl
from lazylayer.api.events import StateEvent
from lazylayer.api.mounting import Missing
from lazylayer.api.oci import Platform, Reference, parse_reference
from lazylayer.api.settings import LogSettings
from lazylayer.cli import log
from lazylayer.layers.merged import MergedLayers
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.plugin.hooks import Hooks
from lazylayer.program import Program
from lazylayer_tool_images.conversion import Conversion, ConversionOptions

SIZE = 50_000
FILES = {f"file-{number}": random.Random(number).randbytes(SIZE) for number in range(10, 90)}
READ = [name for name in FILES if name < "file-50"]
"""The others stay away, so that the layer never becomes complete, which is a change and would be told."""
SETTINGS = (
    "background.enabled=false",
    "prefetch.enabled=false",
    "fetch.window_min=1",
    "fetch.window_max=131072",
    "mount.frontend=frontend_fuse",
    "mount.allow_other=false",
    "plugin.frontend_fuse.kernel_cache=false",  # else the kernel would answer most reads itself
)
READS = 10_000
READER = """
import os, random, sys
directory, count, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
chance = random.Random(1)
for _ in range(count):
    descriptor = os.open(os.path.join(directory, chance.choice(names)), os.O_RDONLY)
    os.pread(descriptor, 4096, chance.randrange(os.fstat(descriptor).st_size))
    os.close(descriptor)
print(sum(os.path.getsize(os.path.join(directory, name)) for name in names))
"""


class Counts:
    """What must stay at zero while files are read."""

    def __init__(self) -> None:
        self.hooks: list[str] = []
        self.settings: list[str] = []
        self.records: list[str] = []

    def all(self) -> list[str]:
        return self.hooks + self.settings + self.records


class Opened(NamedTuple):
    filesystem: Filesystem
    hooks: Hooks
    reference: Reference


class CountingPlugin:
    """Hears what is told to all plugins one by one, where pluggy's own monitoring does not see it."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts

    @hookimpl
    def lazylayer_report_state(self, event: StateEvent) -> None:
        self.counts.hooks.append(f"report_state {event.kind}")

    @hookimpl
    def lazylayer_add_virtual_entries(self) -> None:
        self.counts.hooks.append("add_virtual_entries")


def convert(directory: Path, program: Program) -> str:
    """An eStargz image in a layout."""
    (directory / "tree").mkdir()
    for name, data in FILES.items():
        (directory / "tree" / name).write_bytes(data)
    reference = f"oci:{directory / 'layout'}:it"
    conversion = Conversion(program.hooks, parse_reference(reference), ConversionOptions())
    conversion.convert_directory(directory / "tree", Platform.of_this_machine())
    return reference


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def opened(tmp_path: Path, counts: Counts, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """A file system whose every hook call, dynaconf access and INFO record is counted; and an image."""
    with ExitStack() as stack:
        program = stack.enter_context(
            Program.load(overrides=[f"root={tmp_path}/root", f"run={tmp_path}/run", *SETTINGS])
        )
        reference = convert(tmp_path, program)
        program.plugins.add("counting", CountingPlugin(counts))
        stack.callback(
            program.plugins.manager.add_hookcall_monitoring(lambda hook, *_: counts.hooks.append(hook), lambda *_: None)
        )
        stack.enter_context(counted_settings(counts, monkeypatch))
        stack.enter_context(counted_records(counts, program))
        filesystem = Filesystem(program)
        stack.callback(filesystem.close)
        yield Opened(filesystem, program.hooks, parse_reference(reference))


@contextmanager
def counted_records(counts: Counts, program: Program) -> Iterator[None]:
    log.set_up(LogSettings(level="INFO"), io.StringIO())
    log.enable_plugins(program.plugins.records)
    logger.add(lambda line: counts.records.append(str(line)), level="INFO", format="{name}: {message}")
    try:
        yield
    finally:
        logger.remove()
        logger.disable("lazylayer")
        for package in map(log.package_of, program.plugins.records):
            logger.disable(package)


@contextmanager
def counted_settings(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Counts every way to a value that dynaconf has."""
    from dynaconf.base import LazySettings
    from dynaconf.base import Settings as DynaconfSettings

    with monkeypatch.context() as patch:
        for owner, name in ((LazySettings, "__getattr__"), (DynaconfSettings, "get"), (DynaconfSettings, "as_dict")):
            patch.setattr(owner, name, counting(getattr(owner, name), counts.settings))
        yield


def counting(function: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(function.__qualname__)
        return function(*arguments, **options)

    return call


def test_the_counters_count(opened: Opened, counts: Counts) -> None:
    from lazylayer.configuration.loading import load_configuration

    opened.filesystem.open_image(opened.reference).close()
    load_configuration(overrides=["log.level=INFO"])
    assert {"lazylayer_resolve_image", "lazylayer_open_layer", "lazylayer_resolve_blob"} <= set(counts.hooks)
    assert {"report_state resolved", "add_virtual_entries"} <= set(counts.hooks)
    assert counts.settings
    logger.enable(__name__)
    logger.info("heard")
    logger.disable(__name__)
    assert counts.records


def test_reads_of_layers(opened: Opened, counts: Counts) -> None:
    image = opened.filesystem.open_image(opened.reference)
    merged = image.merged()
    entries = {name: merged.tree.lookup(name.encode()) for name in READ}
    before = counts.all()
    chance = random.Random(0)
    for tree in (merged, image.layers[0]):
        for _ in range(READS // 2):
            name = chance.choice(READ)
            entry = entries[name]
            assert entry is not None
            offset = chance.randrange(SIZE)
            assert tree.read(entry, offset, 4096) == FILES[name][offset : offset + 4096]
    assert counts.all() == before
    image.close()


@pytest.mark.fuse
def test_reads_of_mounts(opened: Opened, counts: Counts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = opened.hooks.of("frontend_fuse").probe_frontend()
    if isinstance(found, Missing):
        pytest.skip(str(found))
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    reads: list[str] = []
    monkeypatch.setattr(MergedLayers, "read", counting(MergedLayers.read, reads))
    opened.filesystem.mount_image(str(mountpoint), opened.reference)
    before = counts.all()
    # From another process: one that serves a mount must not read it itself.
    command = [sys.executable, "-c", READER, str(mountpoint), str(READS // 4), *READ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) == SIZE * len(READ)
    assert counts.all() == before
    assert len(reads) >= READS // 4
    opened.filesystem.unmount(str(mountpoint))
