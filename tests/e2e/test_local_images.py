"""Complete layers, under containerd: from the next mount on no process serves them, or is needed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.containerd_node import ContainerdNode
from e2e.hashing_container import HashingContainer
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.servers]


@pytest.fixture
def node(as_root: None, server_directory: Path, docker_registry: DockerRegistry) -> Iterator[ContainerdNode]:
    directory = server_directory / "m"
    with ContainerdNode(directory, docker_registry, settings={"background.silence": "0.0"}) as node:
        yield node


def images(node: ContainerdNode) -> list[Path]:
    return list((node.daemon.directory / "root/frontend_erofs/images").glob("*.json"))


def test_complete_layers_need_no_daemon(node: ContainerdNode, reference: str, python_layers: list[Path]) -> None:
    layers = node.pull(reference)["layers"]
    if node.daemon.frontend() != "frontend_erofs":
        pytest.skip("EROFS does not work here")
    wait_until(lambda: len(images(node)) == len(layers), "a local image of each layer is made", 60)
    node.restart(signal.SIGINT)
    wait_until(lambda: len(node.daemon.mounts()) == len(layers), "the layers are mounted again")
    devices = {mount: Path(mount).stat().st_dev for mount in node.daemon.mounts()}

    container = HashingContainer(node.containerd, reference, python_layers, node.daemon.directory / "readers.log")
    container.wait_for_all()
    node.daemon.end(signal.SIGKILL)
    container.wait_for_all()
    assert container.failures() == [], "no process serves the layers, and they are read all the same"
    assert container.wrong() == []

    node.daemon.start()
    wait_until(node.is_connected, "containerd is connected again")
    assert {mount: Path(mount).stat().st_dev for mount in node.daemon.mounts()} == devices, "they were taken up"
    assert node.run(reference, "print(6 * 7)", name="another") == "42\n"
    container.wait_for_reads()
    container.remove()
    node.remove_images()
    wait_until(lambda: not node.daemon.mounts(), "the layers are unmounted")
    assert container.failures() == container.wrong() == []
