"""What readers in a container notice while the daemon is upgraded under full load, and when the keeper dies too."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugins.frontend_erofs.tests.keepers import Keepers

from e2e.containerd_node import ContainerdNode
from e2e.hashing_container import HashingContainer
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.servers, pytest.mark.timeout(300)]

ROUNDS = 6


@pytest.fixture
def node(as_root: None, server_directory: Path, docker_registry: DockerRegistry) -> Iterator[ContainerdNode]:
    directory = server_directory / "u"
    # What is mounted from a local image needs no daemon.
    settings = {"plugin.frontend_erofs.local_images": "0"}
    with ContainerdNode(directory, docker_registry, settings=settings) as node:
        yield node


@pytest.fixture
def container(node: ContainerdNode, reference: str, python_layers: list[Path]) -> Iterator[HashingContainer]:
    node.pull(reference)
    if node.daemon.frontend() != "frontend_erofs":
        pytest.skip("EROFS does not work here")
    container = HashingContainer(node.containerd, reference, python_layers, node.daemon.directory / "readers.log")
    yield container
    container.remove()


def test_nobody_notices_an_upgrade_under_load(node: ContainerdNode, container: HashingContainer) -> None:
    devices = {mount: Path(mount).stat().st_dev for mount in node.daemon.mounts()}
    for number in range(ROUNDS):
        # As the systemd unit does it; now and then the old one is killed instead, as when it takes too long.
        node.daemon.end(signal.SIGKILL if number % 3 == 2 else signal.SIGTERM)
        node.daemon.start()
        container.wait_for_reads()
    assert {mount: Path(mount).stat().st_dev for mount in node.daemon.mounts()} == devices, "nothing was mounted anew"
    assert container.failures() == []
    assert container.wrong() == []


def test_without_daemon_and_keeper_readers_get_errors_only(
    node: ContainerdNode, container: HashingContainer, reference: str
) -> None:
    # Stopped first, lest it replace the keeper.
    os.kill(node.daemon.pid, signal.SIGSTOP)
    Keepers(node.daemon.directory / "run" / "frontend_erofs").kill()
    node.daemon.end(signal.SIGKILL)
    wait_until(lambda: len(container.failures()) > 20, "readers get errors")
    assert container.wrong() == []
    node.daemon.start()
    wait_until(node.is_connected, "containerd is connected again")
    assert node.run(reference, "print(6 * 7)", name="new") == "42\n"
    assert container.wrong() == []
