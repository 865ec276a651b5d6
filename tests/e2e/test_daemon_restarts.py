"""The snapshotter is killed, stopped and interrupted, while containers run and while a pull is under way."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.containerd_node import PYTHON, SNAPSHOTTER, ContainerdNode
from images.go_image import GoImages
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import ServerError, wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.servers]

ROUNDS = 20
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

READER = """
import glob, hashlib, os, sys, time
names = sorted(glob.glob("/usr/lib/python3*/*.py"))
def digest():
    sums = hashlib.sha256()
    for name in names:
        with open(name, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            sums.update(file.read())
    return sums.hexdigest()
expected = digest()
print("ready", flush=True)
while True:
    try:
        if digest() != expected:
            print("wrong", flush=True)
            sys.exit(3)
    except OSError as error:
        print("error", error.errno, flush=True)
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def another_reference(go_images: GoImages, python_layers: list[Path]) -> str:
    return go_images.push_estargz(python_layers, chunk_size=100_000)


@pytest.fixture
def node(as_root: None, server_directory: Path, docker_registry: DockerRegistry) -> Iterator[ContainerdNode]:
    directory = server_directory / "m"
    with ContainerdNode(directory, docker_registry) as node:
        yield node


class Container:
    """A container that reads its files again and again, and says when they are wrong."""

    def __init__(self, node: ContainerdNode, reference: str, name: str) -> None:
        self._log = node.daemon.directory / f"{name}.log"
        self._node = node
        self._name = name
        options = ["--detach", "--snapshotter", SNAPSHOTTER, "--log-uri", f"file://{self._log}"]
        node.containerd.ctr("run", *options, reference, name, PYTHON, "-IBc", READER)
        wait_until(lambda: "ready" in self.said(), "the container reads")

    def said(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def remove(self) -> None:
        self._node.containerd.ctr("tasks", "delete", "--force", self._name)
        self._node.containerd.ctr("containers", "delete", self._name)


def wait_until_both_agree(node: ContainerdNode) -> None:
    """containerd's view of our snapshots and ours become the same; it collects behind everybody's back."""

    def agree() -> bool:
        return len(node.snapshots()) == len(list(node.daemon.snapshots.iterdir()))

    wait_until(agree, "containerd and the snapshotter agree")
    assert len(node.daemon.mounts()) <= len(node.snapshots())


@pytest.mark.timeout(600)
def test_whatever_ends_the_daemon_nothing_leaks(node: ContainerdNode, reference: str, another_reference: str) -> None:
    survives = False
    for number in range(ROUNDS):
        start_pull(node, reference, "default").wait(60)
        container = Container(node, reference, f"reader-{number}")
        survives = survives or node.daemon.frontend() == "frontend_erofs"
        pull = start_pull(node, another_reference, "other")
        if number % 2:
            wait_until(lambda: len(node.daemon.mounts()) > 2 or pull.poll() is not None, "the pull began")  # noqa: B023
        node.restart(SIGNALS[number % len(SIGNALS)])
        pull.wait(60)
        assert node.run(reference, "print(6 * 7)", name=f"new-{number}") == "42\n"
        assert "wrong" not in container.said()
        if survives and SIGNALS[number % len(SIGNALS)] != signal.SIGINT:
            assert "error" not in container.said()
        container.remove()
        node.remove_images("other")
        node.remove_images()
        collect(node)
        assert node.snapshots() == set()
        assert list(node.daemon.snapshots.iterdir()) == []
        assert node.daemon.mounts() == []


def start_pull(node: ContainerdNode, reference: str, namespace: str) -> subprocess.Popen[bytes]:
    """A pull by containerd's own client in the background; it may fail."""
    command: list[str | Path] = ["ctr-remote", "--address", node.containerd.address, "--namespace", namespace]
    arguments = ["images", "rpull", "--plain-http", "--snapshotter", SNAPSHOTTER, reference]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def collect(node: ContainerdNode) -> None:
    """Let containerd collect what an ended pull left under its lease."""
    for namespace in node.containerd.ctr("namespaces", "list", "--quiet").split():
        for lease in node.containerd.ctr("leases", "list", "--quiet", namespace=namespace).split():
            node.containerd.ctr("leases", "delete", "--sync", lease, namespace=namespace)


def test_a_restart_asks_the_registry_for_nothing_that_is_here(node: ContainerdNode, reference: str) -> None:
    node.pull(reference)
    assert node.run(reference, "import json, email.message; print(json.dumps(1))") == "1\n"
    node.registry.kill()
    try:
        node.restart(signal.SIGKILL)
        wait_until(lambda: len(node.daemon.mounts()) == 2, "both layers are mounted")
        wait_until_both_agree(node)
    finally:
        node.registry.start()
    before = node.registry.log.read_bytes().count(b'"GET /v2/')
    assert node.run(reference, "import json, email.message; print(json.dumps(1))") == "1\n"
    assert node.registry.log.read_bytes().count(b'"GET /v2/') - before <= 4


def test_a_registry_that_is_away_stops_no_start(node: ContainerdNode, reference: str) -> None:
    node.pull(reference)
    node.daemon.end(signal.SIGINT)
    assert node.daemon.mounts() == []
    shutil.rmtree(node.daemon.directory / "root/cache", ignore_errors=True)
    for cache in (node.daemon.directory / "root").glob("cache*"):
        shutil.rmtree(cache)
    node.registry.kill()
    try:
        node.daemon.start()
        wait_until(node.is_connected, "containerd is connected again")
        with pytest.raises(ServerError, match=r"(?i)is unavailable"):
            node.run(reference, "print(6 * 7)", name="too-early")
    finally:
        node.registry.start()
    assert node.run(reference, "print(6 * 7)", name="later") == "42\n"


def test_a_fuse_mount_whose_server_died_gives_errors_and_never_wrong_bytes(
    as_root: None, server_directory: Path, docker_registry: DockerRegistry, reference: str
) -> None:
    directory = server_directory / "f"
    with ContainerdNode(directory, docker_registry, settings={"mount.frontend": "frontend_fuse"}) as node:
        node.pull(reference)
        container = Container(node, reference, "reader")
        node.restart(signal.SIGKILL)
        wait_until(lambda: "error" in container.said(), "the container gets errors")
        assert "wrong" not in container.said()
        assert node.run(reference, "print(6 * 7)", name="new") == "42\n"
        container.remove()
        node.remove_images()
        wait_until_both_agree(node)
        assert node.daemon.mounts() == []
