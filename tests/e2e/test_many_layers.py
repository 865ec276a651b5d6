"""Many layers, many pulls at once, and a registry that never answers."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.containerd_node import SNAPSHOTTER, ContainerdNode, pick_layers
from images.go_image import GoImages
from images.lazy_layer import tar_of
from lazylayer.api.oci import Digest, parse_reference
from lazylayer.cli import ask_daemon
from lazylayer_snapshotter_containerd.client import Containerd
from lazylayer_snapshotter_containerd.labels import layer_source_labels
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import free_port

pytestmark = [pytest.mark.fuse, pytest.mark.servers]

LAYERS = 100
PULLS = 50

SCRIPT = """
import os
print(len(os.listdir("/many")), open("/many/0").read(), open("/many/97").read(), open("/last").read())
"""


@pytest.fixture(scope="module")
def reference(as_root: None, go_images: GoImages, python_layers: list[Path], server_directory: Path) -> Iterator[str]:
    """An image of 100 layers in which Python runs."""
    directory = server_directory / "many-layers"
    directory.mkdir()
    layers = list(python_layers)
    for number in range(LAYERS - len(python_layers)):
        layers.append(directory / f"{number}.tar")
        content = str(number).encode()
        layers[-1].write_bytes(tar_of({f"many/{number}": content, "last": content}))
    yield go_images.push_estargz(layers)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def silent_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def node(server_directory: Path, docker_registry: DockerRegistry, silent_port: int) -> Iterator[ContainerdNode]:
    directory = server_directory / "k"
    settings = {"resolve.timeout": "120"}
    with ContainerdNode(
        directory, docker_registry, plain_http=(f"127.0.0.1:{silent_port}",), settings=settings
    ) as node:
        yield node


def test_an_image_of_100_layers_runs(node: ContainerdNode, reference: str) -> None:
    pulled = node.pull(reference)
    assert [layer["lazy"] for layer in pulled["layers"]] == [True] * LAYERS
    assert len(node.daemon.mounts()) == LAYERS
    assert node.run(reference, SCRIPT) == "98 0 97 97\n"
    node.remove_images()
    assert node.daemon.mounts() == []


@contextmanager
def silence(port: int) -> Iterator[threading.Event]:
    """A server that takes connections and says nothing; the event says that somebody has connected."""
    connected = threading.Event()
    connections: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            connected.set()

    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield connected
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in connections:
        connection.close()


def test_pulls_do_not_wait_for_each_other(node: ContainerdNode, reference: str, silent_port: int) -> None:
    """50 pulls at once, while a layer of a registry that never answers is waited for."""
    images = [pick_layers(node.registry, reference, [2 * each, 2 * each + 1], f"pick-{each}") for each in range(PULLS)]
    with silence(silent_port) as connected:
        waiting = threading.Thread(target=prepare_silent, args=(node, silent_port))
        waiting.start()
        assert connected.wait(60)

        def pull(image: str) -> dict[str, Any]:
            arguments = {
                "reference": image,
                "directory": "/",
                "containerd": str(node.containerd.address),
                "namespace": "default",
                "snapshotter": SNAPSHOTTER,
            }
            pulled: dict[str, Any] = ask_daemon(node.daemon.run_directory, "pull", arguments, lambda line: None)
            return pulled

        with ThreadPoolExecutor(PULLS) as threads:
            pulled = list(threads.map(pull, images))
        assert all(layer["lazy"] for image in pulled for layer in image["layers"])
        assert len(node.daemon.mounts()) == 2 * PULLS
        assert waiting.is_alive()
    waiting.join()
    node.remove_images()
    assert node.daemon.mounts() == []


def prepare_silent(node: ContainerdNode, port: int) -> None:
    """Ask for a layer of the silent registry; it becomes an ordinary snapshot when that goes away."""
    digest = Digest("sha256:" + "1" * 64)
    labels = layer_source_labels(parse_reference(f"127.0.0.1:{port}/silent:1"), digest, [digest])
    with Containerd(str(node.containerd.address), "default") as containerd:
        assert containerd.prepare(SNAPSHOTTER, "silent", "", {**labels, "containerd.io/snapshot.ref": digest})
        containerd.remove_snapshot(SNAPSHOTTER, "silent")
