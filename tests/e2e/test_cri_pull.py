"""kubelet's way: a pull through `lazylayer cri-proxy` makes `lazylayer serve` able to mount a private image."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from plugins.keychain_cri.tests.image_service import image_request, pull_request

from e2e.command_line import CommandLine
from lazylayer.program import Program
from lazylayer_building import BuildOptions
from lazylayer_testing.registry import ImageLayer, ScriptedRegistry, TokenAuthentication
from lazylayer_testing.servers.containerd import Containerd
from lazylayer_testing.servers.process import ServerError, ServerProcess, wait_until
from lazylayer_tool_images.building import build_layer

pytestmark = [pytest.mark.fuse, pytest.mark.servers]

PASSWORD = "Pa55w0rd-of-a-pod"
CONTENT = os.urandom(3_000_000)


class Node:
    """containerd with CRI and our snapshotter, the proxy in front of it, and a registry for members only."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.authentication = TokenAuthentication({"ann": PASSWORD}, anonymous=False)
        self.registry = stack.enter_context(ScriptedRegistry(authentication=self.authentication))
        self.image = f"{self.registry.host}/team/app:1"
        self.shell = CommandLine(directory)
        self.configuration = directory / "lazylayer.toml"
        proxy_socket, snapshotter_socket = directory / "cri.sock", directory / "snapshots.sock"
        self.containerd = Containerd(
            directory / "c", snapshotters={"lazylayer": snapshotter_socket}, cri=True, cri_snapshotter="lazylayer"
        )
        self.configuration.write_text(
            f"""
            resolve.plain_http = ["{self.registry.host}"]
            background.enabled = false
            [plugin.keychain_cri]
            listen = "{proxy_socket}"
            backend = "{self.containerd.address}"
            """
        )
        self.channel = stack.enter_context(grpc.insecure_channel(f"unix:{proxy_socket}"))
        self.serve = self._server("serve", snapshotter_socket, "--address", str(snapshotter_socket))
        self.proxy = self._server("cri-proxy", proxy_socket)
        for server in (self.serve, self.proxy):
            server.start()
            stack.callback(server.stop)
        stack.enter_context(self.containerd)

    def _server(self, name: str, socket: Path, *arguments: str) -> ServerProcess:
        command = self.shell.command(name, *arguments, settings={"log.level": "DEBUG"})
        command[command.index("--set") : command.index("--set")] = ["--config", str(self.configuration)]
        return ServerProcess(command, log=self.shell.directory / f"{name}.log", ready=socket.exists)

    def publish(self) -> None:
        archive, built = io.BytesIO(), io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as members:
            member = tarfile.TarInfo("file")
            member.size = len(CONTENT)
            members.addfile(member, io.BytesIO(CONTENT))
        archive.seek(0)
        where = self.shell.directory / "build"
        with Program.load(overrides=[f"root={where}", f"run={where}"]) as program:
            layer = build_layer(program.hooks, "estargz", archive, built, BuildOptions(chunk_size=500_000))
        annotations = layer.descriptor.annotations
        self.registry.content.add_image(
            "team/app", "1", [ImageLayer(built.getvalue(), annotations=annotations, diff_id=layer.diff_id)]
        )

    def call(self, method: str, request: bytes) -> bytes:
        remote: Any = self.channel.unary_unary(f"/runtime.v1.ImageService/{method}")
        answer: bytes = remote(request, timeout=100, wait_for_ready=True)
        return answer

    def containerd_knows_us(self) -> bool:
        try:
            self.containerd.ctr("snapshots", "--snapshotter", "lazylayer", "list", namespace="k8s.io", seconds=10)
        except ServerError:
            return False
        return True

    def mountpoints(self) -> list[Path]:
        return [Path(each["mountpoint"]) for each in self.shell.status()]

    def said(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self.shell.directory.glob("*.log"))


@pytest.fixture
def node(as_root: None) -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="lazylayer-", dir="/var/tmp") as directory, ExitStack() as stack:
        node = Node(Path(directory), stack)
        node.publish()
        yield node
        for mountpoint in node.mountpoints():  # where a test failed
            node.shell.run("umount", "--force", mountpoint)


def test_private_image_is_mounted_and_survives_a_restart(node: Node) -> None:
    with pytest.raises(grpc.RpcError, match="401"):
        node.call("PullImage", pull_request(node.image, username="ann", password="wrong"))
    assert node.mountpoints() == []

    answer = node.call("PullImage", pull_request(node.image, username="ann", password=PASSWORD))
    (mountpoint,) = node.mountpoints()
    assert node.registry.blob_bytes_sent < len(CONTENT) / 2, "the layer was pulled, not mounted"

    # A crash: nothing but the files tells the new daemon how to log in.
    node.serve.kill()
    node.authentication.revoke()
    node.serve.start()
    wait_until(lambda: node.mountpoints() == [mountpoint], "the mount is back")
    assert (mountpoint / "file").read_bytes() == CONTENT

    assert list((node.shell.root / "keychain_cri").iterdir())
    # containerd dials again only after a while, and its garbage collection does not try again by itself.
    wait_until(node.containerd_knows_us, "containerd has found the new daemon")
    node.call("RemoveImage", image_request(answer[2:].decode()))
    assert list((node.shell.root / "keychain_cri").iterdir()) == []
    wait_until(lambda: node.mountpoints() == [], "the mount is gone with its image")
    assert PASSWORD not in node.said()
