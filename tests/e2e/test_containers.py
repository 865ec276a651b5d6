"""containerd and runc start containers from images that have not arrived."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import grpc
import pytest

from e2e.command_line import CommandLine
from e2e.containerd_node import SNAPSHOTTER, ContainerdNode, mixed_image
from images.go_image import GoImages
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_wire import Message

pytestmark = [pytest.mark.fuse, pytest.mark.servers]

TREE = """
import hashlib, os, stat
mounted = ("/", "/proc", "/sys", "/dev", "/run")
def facts(path):
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    content = b""
    if kind == stat.S_IFREG:
        content = hashlib.sha256(open(path, "rb").read()).hexdigest()
    if kind == stat.S_IFLNK:
        content = os.readlink(path)
    times = 0 if path in mounted else status.st_mtime_ns
    return oct(status.st_mode), status.st_uid, status.st_gid, times, content
def walk(path):
    print(path, *facts(path))
    if stat.S_ISDIR(os.lstat(path).st_mode) and path not in mounted[1:]:
        for name in sorted(os.listdir(path)):
            walk(os.path.join(path, name))
walk("/")
"""

CHANGES = """
import json, os, shutil
library = os.path.dirname(json.__file__)
os.remove(f"{library}/tool.py")
os.rename(f"{library}/scanner.py", f"{library}/renamed.py")
with open(f"{library}/decoder.py", "a") as file:
    file.write("# appended")
shutil.rmtree(f"{library}/../email")
os.makedirs(f"{library}/../email/new")
os.chown("/etc/passwd", 5, 6)
os.symlink("passwd", "/etc/link")
print(sorted(os.listdir(library)), os.listdir(f"{library}/../email"), os.stat("/etc/link").st_uid)
print(open(f"{library}/decoder.py").read().endswith("# appended"))
"""


@pytest.fixture(scope="module")
def node(as_root: None, server_directory: Path, docker_registry: DockerRegistry) -> Iterator[ContainerdNode]:
    directory = server_directory / "n"
    # Without background fetching every request is one that something asked for.
    with ContainerdNode(directory, docker_registry, settings={"background.enabled": "false"}) as node:
        yield node


@pytest.fixture(scope="module")
def lazy(go_images: GoImages, python_layers: list[Path]) -> str:
    return go_images.push_estargz(python_layers)


@pytest.fixture(scope="module")
def plain(go_images: GoImages, python_layers: list[Path]) -> str:
    return go_images.push_plain(python_layers)


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test images are removed, and nothing must be left of them."""
    node: ContainerdNode = request.getfixturevalue("node")
    yield
    for namespace in node.containerd.ctr("namespaces", "list", "--quiet").split():
        node.remove_images(namespace)
        assert node.snapshots(namespace) == set()
    assert node.daemon.mounts() == []
    assert list(node.daemon.snapshots.iterdir()) == []


def laziness(pulled: dict[str, Any]) -> list[bool]:
    return [layer["lazy"] for layer in pulled["layers"]]


def blob_requests(registry: DockerRegistry) -> int:
    return registry.log.read_bytes().count(b"/blobs/sha256:")


def test_pull_and_run(node: ContainerdNode, lazy: str, plain: str) -> None:
    assert laziness(node.pull(lazy)) == [True, True]
    assert node.run(lazy, "print(6 * 7)") == "42\n"
    before = blob_requests(node.registry)
    assert node.run(lazy, "print(6 * 7)") == "42\n"
    assert blob_requests(node.registry) == before
    node.containerd.ctr("images", "pull", "--plain-http", "--snapshotter", "overlayfs", plain)
    expected = node.run(plain, TREE, snapshotter="overlayfs").splitlines()
    assert node.run(lazy, TREE).splitlines() == expected
    assert len(expected) > 500


def test_tables_outside_of_the_image(node: ContainerdNode, plain: str, server_directory: Path) -> None:
    """Pulled lazily, with the diff IDs of the plain image, and by a containerd that knows nothing of it."""
    outside = plain.removesuffix(":plain") + ":outside"
    command_line = CommandLine(server_directory / "outside")
    command_line.run("convert", "--plain-http", "--external-toc", "--keep-diff-id", plain, outside)
    assert laziness(node.pull(outside)) == [True, True]
    chains = node.snapshots()
    printed = node.run(outside, TREE)
    node.remove_images()
    node.containerd.ctr("images", "pull", "--plain-http", "--snapshotter", "overlayfs", outside)
    assert node.run(outside, TREE, snapshotter="overlayfs") == printed
    node.remove_images()
    node.containerd.ctr("images", "pull", "--plain-http", "--snapshotter", SNAPSHOTTER, plain)
    assert node.snapshots() == chains, "layers of the same diff IDs have the same snapshots"


def test_containers_change_their_files(node: ContainerdNode, lazy: str, plain: str) -> None:
    node.pull(lazy)
    node.containerd.ctr("images", "pull", "--plain-http", "--snapshotter", "overlayfs", plain)
    changed = node.run(lazy, CHANGES)
    assert changed == node.run(plain, CHANGES, snapshotter="overlayfs")
    assert node.run(lazy, "import json.tool, email.message; print('fresh')") == "fresh\n"


def test_usage_grows_as_files_are_read(node: ContainerdNode, lazy: str) -> None:
    node.pull(lazy)
    node.run(lazy, "print()")
    usage = node.containerd.ctr("snapshots", "--snapshotter", SNAPSHOTTER, "usage", "-b").splitlines()[1:]
    assert all(int(line.split()[1]) > 100_000 for line in usage if line.strip())


def test_a_plain_image_is_unpacked_and_runs(node: ContainerdNode, plain: str) -> None:
    pulled = node.pull(plain)
    assert laziness(pulled) == [False, False]
    assert all("lazylayer convert" in layer["reason"] for layer in pulled["layers"])
    assert node.run(plain, "print(6 * 7)") == "42\n"
    warnings = [line for line in node.daemon.log() if line.get("remote-snapshot-prepared") == "false"]
    assert [line["level"] for line in warnings[-2:]] == ["WARNING", "WARNING"]


def test_mixed_images_run(node: ContainerdNode, lazy: str, plain: str) -> None:
    lower = mixed_image(node.registry, lazy, plain, "lower-lazy")
    upper = mixed_image(node.registry, plain, lazy, "upper-lazy")
    for reference, expected in ((lower, [True, False]), (upper, [False, True])):
        for namespace in ("default", "other"):
            assert laziness(node.pull(reference, namespace=namespace)) == expected
            assert node.run(reference, "import json; print(json.dumps(1))", namespace=namespace) == "1\n"


@pytest.mark.seed(3)
def test_the_go_client_pulls(node: ContainerdNode, lazy: str) -> None:
    node.containerd.ctr_remote("images", "rpull", "--plain-http", "--snapshotter", SNAPSHOTTER, lazy)
    prepared = [line["remote-snapshot-prepared"] for line in node.daemon.log() if "remote-snapshot-prepared" in line]
    assert prepared[-2:] == ["true", "true"]
    assert len(node.daemon.mounts()) == 2
    assert node.run(lazy, "print(6 * 7)") == "42\n"


class ImageSpec(Message, frozen=True):
    image: Annotated[str, 1] = ""


class PullImageRequest(Message, frozen=True):
    image: Annotated[ImageSpec | None, 1] = None


class PullImageResponse(Message, frozen=True):
    image_ref: Annotated[str, 1] = ""


def pull_by_cri(node: ContainerdNode, reference: str) -> str:
    with grpc.insecure_channel(f"unix:{node.containerd.address}") as channel:
        call: Any = channel.unary_unary(
            "/runtime.v1.ImageService/PullImage",
            request_serializer=lambda message: message.encode(),
            response_deserializer=PullImageResponse.decode,
        )
        image: str = call(PullImageRequest(ImageSpec(reference)), timeout=120).image_ref
    return image


@pytest.mark.seed(3)
def test_cri_pulls_lazily_in_several_namespaces_at_once(node: ContainerdNode, lazy: str) -> None:
    namespaces = ("k8s.io", "one", "two", "three")

    def pull(namespace: str) -> None:
        if namespace == "k8s.io":
            assert pull_by_cri(node, lazy).startswith("sha256:")
        else:
            assert laziness(node.pull(lazy, namespace=namespace)) == [True, True]

    with ThreadPoolExecutor(len(namespaces)) as threads:
        list(threads.map(pull, namespaces))
    assert len(node.daemon.mounts()) == 2
    for namespace in namespaces:
        assert len(node.snapshots(namespace)) == 2
        assert node.run(lazy, "print(6 * 7)", namespace=namespace) == "42\n"
