"""A recorded workload starts from what was prefetched: it asks the source for nothing more."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from e2e.command_line import CommandLine
from lazylayer.filesystem import Filesystem
from lazylayer.oci import parse_reference
from lazylayer.profiles import read_profile
from lazylayer.program import Program

pytestmark = [pytest.mark.fuse, pytest.mark.servers]

SCRIPT = "import json, decimal, email.parser, logging, sqlite3"
PYTHON = Path("/usr/bin/python3")


@pytest.fixture(scope="module")
def root(as_root: None, server_directory: Path) -> Iterator[Path]:
    """A root with Debian's Python in it, its library, and what its programs are linked with."""
    libraries = sorted(Path("/usr/lib").glob("python3.*/os.py"))
    if not PYTHON.exists() or not libraries:
        pytest.skip("there is no Python of Debian's to put into an image")
    library = libraries[-1].parent
    root = server_directory / "python-root"
    for name in ("proc", "sys", "dev", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "usr/bin").mkdir(parents=True)
    shutil.copy2(PYTHON.resolve(), root / "usr/bin/python3")
    shutil.copytree(library, root / library.relative_to("/"), symlinks=False, ignore_dangling_symlinks=True)
    programs = [PYTHON.resolve(), *library.glob("lib-dynload/*.so")]
    linked = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    for word in {word for word in linked.split() if word.startswith("/") and not word.endswith(":")}:
        target = root / word.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(word, target)
    yield root
    shutil.rmtree(root)


def test_recorded_workload_asks_for_nothing_more(root: Path, server_directory: Path) -> None:
    directory = server_directory / "recording"
    directory.mkdir()
    command_line = CommandLine(directory)
    record, image = directory / "record", f"oci:{directory}/image:v"
    try:
        words = ["convert", "--record", f"python3 -c '{SCRIPT}'", "--record-out", str(record), f"dir:{root}", image]
        command_line.run(*words)
        profile = read_profile(record)
        assert b"usr/bin/python3" in [entry.path for entry in profile]
        assert any(b"decimal" in entry.path for entry in profile)
        run_from_prefetched(directory, image, {entry.path for entry in profile})
    finally:
        shutil.rmtree(directory)


def run_from_prefetched(directory: Path, image: str, read: set[bytes]) -> None:
    mountpoint = directory / "mountpoint"
    mountpoint.mkdir()
    settings = [f"root={directory}/root", f"run={directory}/run", "background.enabled=false"]
    settings += ["cache.chunks=cache_memory", "cache.ranges=cache_memory", "mount.frontend=frontend_fuse"]
    reference = parse_reference(image)
    with (
        Program.load(overrides=settings) as program,
        closing(Filesystem(program)) as filesystem,
        closing(filesystem.open_image(reference)) as opened,
    ):
        (layer,) = opened.layers
        opening = layer.blob.network_bytes
        filesystem.mount_image(str(mountpoint), reference)
        filesystem.check(str(mountpoint))
        asked, fetched = layer.blob.requests, layer.blob.network_bytes
        subprocess.run(["chroot", str(mountpoint), "/usr/bin/python3", "-c", SCRIPT], check=True)
        assert layer.blob.requests == asked, "the workload read what was not prefetched"
        table, needed = layer.contents.chunks, 0
        for path, entry in layer.tree.walk():
            if path in read:
                numbers = range(entry.first_chunk, entry.first_chunk + entry.chunk_count)
                needed += sum(table.member_extent(table.member_of(number)).size for number in numbers)
        assert 0 < fetched - opening < 1.3 * needed
        filesystem.unmount(str(mountpoint))


def test_workload_that_fails_is_told(root: Path, server_directory: Path) -> None:
    directory = server_directory / "failing"
    directory.mkdir()
    try:
        for command, said in (("python3 -c 1/0", b"ZeroDivision"), ("nowhere", b"nowhere")):
            done = CommandLine(directory).run(
                "convert", "--record", command, f"dir:{root}", f"oci:{directory}/image:v", check=False
            )
            assert done.returncode == 1
            assert said in done.stderr
        assert not (directory / "image/index.json").exists()
        assert "lazylayer-record" not in Path("/proc/self/mounts").read_text()
    finally:
        shutil.rmtree(directory)
