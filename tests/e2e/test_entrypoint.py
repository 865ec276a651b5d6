"""An image's default program starts from files that were fetched before the first read."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from e2e.command_line import CommandLine
from images.oci_layout import write_layout
from images.python_image import PYTHON
from lazylayer.api.oci import parse_reference
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.program import Program
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.servers]

COMMAND = [PYTHON, "-Bc", "import numpy; assert numpy.linalg.det(numpy.eye(3)) == 1"]


@pytest.fixture(scope="module")
def directory(as_root: None, server_directory: Path) -> Iterator[Path]:
    directory = server_directory / "entrypoint"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def reference(directory: Path, numpy_layers: list[Path], docker_registry: DockerRegistry) -> str:
    write_layout(directory / "layout", numpy_layers, "plain", command=COMMAND)
    target = f"{docker_registry.host}/entrypoint/numpy:lazy"
    CommandLine(directory).run("convert", "--plain-http", f"oci:{directory}/layout:plain", target)
    return target


def requests_of_a_run(reference: str, directory: Path, docker_registry: DockerRegistry, max_bytes: int) -> int:
    """How many blobs, or parts of them, are asked for when the command runs after the prefetch."""
    mountpoint = directory / f"mountpoint-{max_bytes}"
    mountpoint.mkdir()
    settings = [f"root={directory}/root-{max_bytes}", f"run={directory}/run", "background.enabled=false"]
    settings += ["cache.chunks=cache_memory", f'resolve.plain_http=["{docker_registry.host}"]']
    settings += [f"plugin.prefetch_entrypoint.max_bytes={max_bytes}"]
    with Program.load(overrides=settings) as program, closing(Filesystem(program)) as filesystem:
        filesystem.mount_image(str(mountpoint), parse_reference(reference))
        wait_until(lambda: not [each for each in threading.enumerate() if each.name == "lazylayer-image"], "prefetched")
        before = docker_registry.log.read_bytes().count(b"/blobs/")
        subprocess.run(["chroot", mountpoint, *COMMAND], check=True)
        asked = docker_registry.log.read_bytes().count(b"/blobs/") - before
        filesystem.unmount(str(mountpoint))
    return asked


def test_a_python_starts_with_its_modules_here(
    reference: str, directory: Path, docker_registry: DockerRegistry
) -> None:
    without = requests_of_a_run(reference, directory, docker_registry, 0)
    ahead = requests_of_a_run(reference, directory, docker_registry, 64 << 20)
    assert ahead < without / 3, "what C code imports, and reads of data, could not be foreseen"
