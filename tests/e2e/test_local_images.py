"""Layers that are complete, under containerd: from the next mount on nobody serves them, nor is needed."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.containerd_node import PYTHON, SNAPSHOTTER, ContainerdNode
from images.go_image import GoImages
from servers.docker_registry import DockerRegistry
from servers.process import wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.servers]

HASH_EVERYTHING = """
import hashlib, os
sums = hashlib.sha256()
for directory, directories, names in os.walk("/usr"):
    directories.sort()
    for name in sorted(names):
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                sums.update(file.read())
print(sums.hexdigest())
"""


@pytest.fixture(scope="module")
def reference(go_images: GoImages, python_layers: list[Path]) -> str:
    return go_images.push_estargz(python_layers)


@pytest.fixture
def node(as_root: None, server_directory: Path, docker_registry: DockerRegistry) -> Iterator[ContainerdNode]:
    directory = server_directory / "m"
    with ContainerdNode(directory, docker_registry, settings={"background.silence": "0.0"}) as node:
        yield node
    shutil.rmtree(directory)


def images(node: ContainerdNode) -> list[Path]:
    return list((node.daemon.directory / "root/frontend_erofs/images").glob("*.json"))


def read_in(node: ContainerdNode, name: str, number: int) -> str:
    options = ["--exec-id", f"read-{number}"]
    return node.containerd.ctr("tasks", "exec", *options, name, PYTHON, "-IBc", HASH_EVERYTHING)


def test_complete_layers_need_no_daemon(node: ContainerdNode, reference: str) -> None:
    layers = node.pull(reference)["layers"]
    expected = node.run(reference, HASH_EVERYTHING)
    if node.daemon.frontend() != "frontend_erofs":
        pytest.skip("EROFS does not work here")
    wait_until(lambda: len(images(node)) == len(layers), "a local image of each layer is made", 60)
    node.restart(signal.SIGINT)
    wait_until(lambda: len(node.daemon.mounts()) == len(layers), "the layers are mounted again")

    sleep = "import time; print('ready', flush=True); time.sleep(600)"
    options = ["--detach", "--snapshotter", SNAPSHOTTER]
    node.containerd.ctr("run", *options, reference, "sleeper", PYTHON, "-IBc", sleep)
    assert read_in(node, "sleeper", 1) == expected
    devices = {mount: Path(mount).stat().st_dev for mount in node.daemon.mounts()}

    node.daemon.end(signal.SIGKILL)
    assert read_in(node, "sleeper", 2) == expected, "nobody serves the layers, and they are read all the same"

    node.daemon.start()
    wait_until(node.is_connected, "containerd is connected again")
    assert {mount: Path(mount).stat().st_dev for mount in node.daemon.mounts()} == devices, "they were taken up"
    assert node.run(reference, HASH_EVERYTHING, name="another") == expected
    node.containerd.ctr("tasks", "delete", "--force", "sleeper")
    node.containerd.ctr("containers", "delete", "sleeper")
    node.remove_images()
    wait_until(lambda: not node.daemon.mounts(), "the layers are unmounted")
