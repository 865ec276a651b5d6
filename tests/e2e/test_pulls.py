"""`lazylayer pull` asks the daemon: ordinary layers, Ctrl-C, images that are there, and what can be wrong."""

from __future__ import annotations

import gzip
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.containerd_node import ContainerdNode
from images.lazy_layer import tar_of
from lazylayer_testing.registry import Fault, Gate, ImageLayer, RecordedRequest, ScriptedRegistry
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.servers]

LAYERS = 5
SIZE = 6_000_000
FIRST_RANGE = "bytes=0-4194303"


@pytest.fixture(scope="module")
def node(as_root: None, server_directory: Path, docker_registry: DockerRegistry) -> Iterator[ContainerdNode]:
    with ContainerdNode(server_directory / "p", docker_registry) as node:
        yield node


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    """A registry with an image of ordinary layers, each larger than one range."""
    with ScriptedRegistry() as registry:
        noise = random.Random(1)
        tars = [tar_of({f"file-{number}": noise.randbytes(SIZE)}) for number in range(LAYERS)]
        registry.content.add_image("plain", "latest", [ImageLayer(gzip.compress(tar, 1)) for tar in tars])
        yield registry


def client(node: ContainerdNode, reference: str, *options: str) -> list[str]:
    run = ["--set", f"run={node.daemon.run_directory}"]
    where = ["--containerd", str(node.containerd.address), *options]
    return [sys.executable, "-m", "lazylayer", *run, "pull", *where, reference]


def leases(node: ContainerdNode) -> list[str]:
    return node.containerd.ctr("leases", "list", "--quiet").split()


def is_first_range(request: RecordedRequest) -> bool:
    return request.headers.get("range", "") == FIRST_RANGE


def test_ordinary_layers_are_fetched_at_once_until_ctrl_c_ends_the_pull(
    node: ContainerdNode, registry: ScriptedRegistry
) -> None:
    gate = Gate()
    registry.script(Fault(hold=gate), when=is_first_range, times=None)
    reference = registry.reference("plain")
    pull = subprocess.Popen(client(node, reference), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    gate.wait_for(3, 60)
    assert len(leases(node)) == 1
    pull.send_signal(signal.SIGINT)
    said, _ = pull.communicate(timeout=60)
    assert pull.returncode == 130, said
    assert "manifest of" in said, "progress is streamed"
    wait_until(lambda: leases(node) == [], "the daemon gives up the lease")
    assert gate.held == 3, "no more layers than that at once"
    gate.release()
    registry.forget_rules()
    pulled = node.pull(reference)
    assert [layer["lazy"] for layer in pulled["layers"]] == [False] * LAYERS
    assert all("lazylayer convert" in layer["reason"] for layer in pulled["layers"])
    assert len(node.snapshots()) == LAYERS
    registry.forget_requests()
    again = node.pull(reference)
    assert [layer["reason"] for layer in again["layers"]] == ["it is unpacked already"] * LAYERS
    assert not [request for request in registry.requests if "range" in request.headers]
    node.remove_images()
    wait_until(lambda: list(node.daemon.snapshots.iterdir()) == [], "the daemon has no directories of snapshots")
    assert node.snapshots() == set()


def test_what_is_wrong_is_said(node: ContainerdNode, registry: ScriptedRegistry, tmp_path: Path) -> None:
    def fail(*command: str) -> tuple[int, str]:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return done.returncode, done.stderr.strip().splitlines()[-1]

    reference = registry.reference("plain")
    alone = [sys.executable, "-m", "lazylayer", "--set", f"run={tmp_path}", "pull", reference]
    status, said = fail(*alone)
    assert (status, "start `lazylayer serve` (systemctl start lazylayer)" in said) == (1, True), said
    status, said = fail(*client(node, reference, "--snapshotter", "missing"))
    assert (status, "add [proxy_plugins.missing]" in said) == (1, True), said
    status, said = fail(*client(node, "registry.test/UPPER:1"))
    assert (status, "Invalid value for 'REF'" in said) == (2, True), said
    status, said = fail(*client(node, registry.reference("missing")))
    assert (status, "MANIFEST_UNKNOWN" in said) == (1, True), said
