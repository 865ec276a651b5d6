"""Fixtures that several folders share. The servers are real, private to the run, on 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.go_image import GoImages
from images.odd_tree import build_odd_layers
from images.python_image import NUMPY, build_numpy_layer, build_python_layers
from lazylayer_testing.servers.containerd import Containerd
from lazylayer_testing.servers.docker_registry import DockerRegistry


@pytest.fixture(scope="session")
def as_root() -> None:
    """Skip tests that need devices, owners and mounts, unless they run as root."""
    if os.geteuid() != 0:
        pytest.skip("needs root: devices, owners and mounts")


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A directory that lasts for the run, its path short enough for sockets, not in memory."""
    directory = Path(tempfile.mkdtemp(prefix="lazylayer-", dir="/var/tmp"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def docker_registry(server_directory: Path) -> Iterator[DockerRegistry]:
    """A docker-registry that runs for the whole session: give images names of your own."""
    with DockerRegistry(server_directory / "registry") as registry:
        yield registry


@pytest.fixture(scope="session")
def containerd(as_root: None, server_directory: Path) -> Iterator[Containerd]:
    """A containerd without CRI that runs for the whole session."""
    with Containerd(server_directory / "containerd") as containerd:
        yield containerd


@pytest.fixture(scope="session")
def go_images(server_directory: Path, docker_registry: DockerRegistry, containerd: Containerd) -> GoImages:
    """Images that the Go tools build into `docker_registry`, each once in a session."""
    return GoImages(server_directory / "layouts", docker_registry, containerd)


@pytest.fixture(scope="session")
def odd_layers(as_root: None, server_directory: Path) -> list[Path]:
    """Tar archives of three layers, lowest first, with every oddity: see `images.odd_tree`."""
    return build_odd_layers(server_directory / "odd-tree")


@pytest.fixture(scope="session")
def python_layers(as_root: None, server_directory: Path) -> list[Path]:
    """Tar archives of two layers, lowest first, in which a container can run Python: see `images.python_image`."""
    return build_python_layers(server_directory / "python-image")


@pytest.fixture(scope="session")
def numpy_layers(python_layers: list[Path], server_directory: Path) -> list[Path]:
    """The same with a third layer on top, with numpy."""
    if not NUMPY.is_dir():
        pytest.skip("Debian's numpy is not installed; as root: scripts/debian-packages test")
    return [*python_layers, build_numpy_layer(server_directory / "numpy-image")]
