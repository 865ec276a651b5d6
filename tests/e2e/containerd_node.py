"""A node: containerd with `lazylayer serve` as one of its snapshotters."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from lazylayer_testing.servers.containerd import Containerd
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import ServerError, wait_until
from servers.lazylayer_daemon import LazylayerDaemon

__all__ = ["PYTHON", "SNAPSHOTTER", "ContainerdNode", "annotate_layers", "claim_layers", "mixed_image", "pick_layers"]

PYTHON = "/usr/bin/python3"
SNAPSHOTTER = "lazylayer"


class ContainerdNode:
    """Both daemons below `directory`, a short path; a context manager, which removes the directory."""

    def __init__(
        self,
        directory: Path,
        registry: DockerRegistry,
        *,
        plain_http: tuple[str, ...] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._directory = directory
        self.registry = registry
        hosts = (registry.host, *plain_http)
        self.daemon = LazylayerDaemon(directory / "l", plain_http=hosts, settings=settings)
        self.containerd = Containerd(
            directory / "c", snapshotters={SNAPSHOTTER: self.daemon.address}, cri=True, cri_snapshotter=SNAPSHOTTER
        )

    def __enter__(self) -> ContainerdNode:
        with ExitStack() as stack:
            stack.enter_context(self.daemon)
            stack.enter_context(self.containerd)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        shutil.rmtree(self._directory)

    def pull(self, reference: str, *, namespace: str = "default") -> dict[str, Any]:
        """`lazylayer pull`; what it said."""
        return self.daemon.pull(self.containerd.address, reference, namespace=namespace)

    def run(
        self, reference: str, script: str, *, name: str = "once", namespace: str = "default", snapshotter: str = ""
    ) -> str:
        """Run Python in a container of an image; what it printed."""
        options = ["--rm", "--snapshotter", snapshotter or SNAPSHOTTER]
        return self.containerd.ctr("run", *options, reference, name, PYTHON, "-IBc", script, namespace=namespace)

    def snapshots(self, namespace: str = "default") -> set[str]:
        """Return the names that containerd has for our snapshots."""
        lines = self.containerd.ctr("snapshots", "--snapshotter", SNAPSHOTTER, "list", namespace=namespace)
        return {line.split()[0] for line in lines.splitlines()[1:] if line.strip()}

    def restart(self, number: signal.Signals) -> None:
        """End the snapshotter by a signal, start it again, and wait until containerd has noticed.

        containerd tries to connect again every three seconds and refuses calls in between.
        """
        self.daemon.end(number)
        self.daemon.start()
        wait_until(self.is_connected, "containerd is connected again")

    def is_connected(self) -> bool:
        """Return True if containerd reaches the snapshotter."""
        try:
            self.containerd.ctr("snapshots", "--snapshotter", SNAPSHOTTER, "prepare", "probe")
            self.containerd.ctr("snapshots", "--snapshotter", SNAPSHOTTER, "remove", "probe")
        except ServerError:
            return False
        return True

    def remove_images(self, namespace: str = "default") -> None:
        """Remove every image of a namespace and what it needed."""
        for name in self.containerd.ctr("images", "list", "--quiet", namespace=namespace).split():
            self.containerd.ctr("images", "remove", "--sync", name, namespace=namespace)


def mixed_image(registry: DockerRegistry, lower: str, upper: str, tag: str) -> str:
    """Push an image of all layers of `lower` but the last, and the last of `upper`, of one repository."""
    repository = lower.removeprefix(f"{registry.host}/").rpartition(":")[0]
    (manifest, config), (other, other_config) = (_read(registry, repository, each) for each in (lower, upper))
    manifest["layers"][-1] = other["layers"][-1]
    config["rootfs"]["diff_ids"][-1] = other_config["rootfs"]["diff_ids"][-1]
    return _write(registry, repository, tag, manifest, config)


def pick_layers(registry: DockerRegistry, reference: str, numbers: Sequence[int], tag: str) -> str:
    """Push an image of some layers of another one, in its repository."""
    repository = reference.removeprefix(f"{registry.host}/").rpartition(":")[0]
    manifest, config = _read(registry, repository, reference)
    manifest["layers"] = [manifest["layers"][number] for number in numbers]
    config["rootfs"]["diff_ids"] = [config["rootfs"]["diff_ids"][number] for number in numbers]
    return _write(registry, repository, tag, manifest, config)


def claim_layers(
    registry: DockerRegistry, reference: str, numbers: Sequence[int], claimed: Sequence[int], tag: str
) -> str:
    """Push an image of some layers of another one, in its repository, whose config claims they are others of them."""
    repository = reference.removeprefix(f"{registry.host}/").rpartition(":")[0]
    manifest, config = _read(registry, repository, reference)
    manifest["layers"] = [manifest["layers"][number] for number in numbers]
    config["rootfs"]["diff_ids"] = [config["rootfs"]["diff_ids"][number] for number in claimed]
    return _write(registry, repository, tag, manifest, config)


def annotate_layers(registry: DockerRegistry, reference: str, annotations: Mapping[str, str], tag: str) -> str:
    """Push a copy of an image, in its repository, whose layers have more annotations."""
    repository = reference.removeprefix(f"{registry.host}/").rpartition(":")[0]
    manifest, config = _read(registry, repository, reference)
    for layer in manifest["layers"]:
        layer["annotations"] = {**layer["annotations"], **annotations}
    return _write(registry, repository, tag, manifest, config)


def _write(registry: DockerRegistry, repository: str, tag: str, manifest: dict[str, Any], config: Any) -> str:
    data = json.dumps(config).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    place = _ask(registry, "POST", f"/v2/{repository}/blobs/uploads/")[1]
    path = place[place.index("/v2/") :]
    _ask(registry, "PUT", f"{path}{'&' if '?' in path else '?'}digest={digest}", data)
    manifest["config"] |= {"digest": digest, "size": len(data)}
    body = json.dumps(manifest).encode()
    _ask(registry, "PUT", f"/v2/{repository}/manifests/{tag}", body, {"Content-Type": manifest["mediaType"]})
    return f"{registry.host}/{repository}:{tag}"


def _read(registry: DockerRegistry, repository: str, reference: str) -> tuple[dict[str, Any], dict[str, Any]]:
    tag = reference.rpartition(":")[2]
    accepted = ", ".join(
        (
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        )
    )
    manifest = json.loads(_ask(registry, "GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": accepted})[0])
    if "manifests" in manifest:
        digest = manifest["manifests"][0]["digest"]
        answer = _ask(registry, "GET", f"/v2/{repository}/manifests/{digest}", headers={"Accept": accepted})
        manifest = json.loads(answer[0])
    manifest.setdefault("mediaType", "application/vnd.oci.image.manifest.v1+json")
    config = json.loads(_ask(registry, "GET", f"/v2/{repository}/blobs/{manifest['config']['digest']}")[0])
    return manifest, config


def _ask(
    registry: DockerRegistry, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[bytes, str]:
    connection = http.client.HTTPConnection(registry.host, timeout=30)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status < 300, (method, path, answer.status, content)
        return content, answer.headers.get("Location", "")
    finally:
        connection.close()
