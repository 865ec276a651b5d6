"""The real servers start, keep what they have, and leave nothing behind."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from images.go_image import GoImages
from images.oci_layout import write_layout
from images.tree_writer import TreeWriter, write_tar
from lazylayer_testing.servers.containerd import Containerd
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import ServerError, wait_until

pytestmark = pytest.mark.servers

_TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"


def _get(reference: str, kind: str = "manifests") -> dict[str, Any]:
    host, _, rest = reference.partition("/")
    name, _, tag = rest.partition(":")
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        accept = "application/vnd.oci.image.manifest.v1+json"
        connection.request("GET", f"/v2/{name}/{kind}/{tag}", headers={"Accept": accept})
        response = connection.getresponse()
        assert response.status == 200
        document: dict[str, Any] = json.loads(response.read())
        return document
    finally:
        connection.close()


@pytest.fixture
def small_layer(as_root: None, tmp_path: Path) -> Path:
    """A layer that holds a program to run: `/bin/sleep` and its libraries."""
    tree = TreeWriter(tmp_path / "tree")
    linked = subprocess.run(["ldd", "/bin/sleep"], capture_output=True, check=True, text=True).stdout
    libraries = [word for line in linked.splitlines() for word in line.split() if word.startswith("/")]
    made: set[bytes] = set()
    for program in ["/bin/sleep", *libraries]:
        name = os.fsencode(program.lstrip("/"))
        parents = [name[:position] for position in range(len(name)) if name[position : position + 1] == b"/"]
        for parent in parents:
            if parent not in made:
                tree.directory(parent)
                made.add(parent)
        tree.file(name, Path(program).read_bytes(), mode=0o755)
    tree.close()
    archive = tmp_path / "layer.tar"
    write_tar(archive, tree.root, tree.names, "pax")
    return archive


def test_a_registry_keeps_its_images_and_its_port(tmp_path: Path, small_layer: Path) -> None:
    digest = write_layout(tmp_path / "layout", [small_layer], "plain")
    with DockerRegistry(tmp_path / "registry") as registry:
        reference = registry.push_layout(tmp_path / "layout", "plain", "some/name:tag")
        assert reference == f"{registry.host}/some/name:tag"
        manifest = _get(reference)
        for end in (registry.stop, registry.kill):
            end()
            assert not registry.running
            registry.start()
            assert _get(reference) == manifest
        by_digest = f"{registry.host}/some/name:{digest}"
        assert _get(by_digest) == manifest
    assert not registry.running


def test_a_registry_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    with DockerRegistry(tmp_path / "first") as first:
        second = DockerRegistry(tmp_path / "second")
        configuration = tmp_path / "second" / "config.yml"
        configuration.write_text(configuration.read_text().replace("filesystem:", "papyrus:"))
        with pytest.raises(ServerError, match=r"(?s)ended with exit code.*papyrus"):
            second.start()
        assert first.running


def test_containerd_runs_containers_and_stops_them_all(
    server_directory: Path, docker_registry: DockerRegistry, small_layer: Path, tmp_path: Path
) -> None:
    write_layout(tmp_path / "layout", [small_layer], "plain", command=["/bin/sleep", "600"])
    reference = docker_registry.push_layout(tmp_path / "layout", "plain", "sleeper:plain")
    directory = server_directory / "containers"
    with Containerd(directory, snapshotters={"absent": tmp_path / "absent.sock"}) as containerd:
        assert "absent" in containerd.ctr("plugins", "list")
        containerd.ctr("images", "pull", "--plain-http", reference)
        containerd.ctr("run", "--detach", reference, "sleeper")
        assert "RUNNING" in containerd.ctr("tasks", "list")
        containerd.kill()
        assert _processes_naming(directory)
        containerd.start()
        assert "RUNNING" in containerd.ctr("tasks", "list")
        containerd.ctr("images", "pull", "--plain-http", reference, namespace="elsewhere")
        containerd.ctr("run", "--detach", reference, "another", namespace="elsewhere")
    assert not _mounts_below(directory)
    wait_until(lambda: not _processes_naming(directory), "no shim is left", 10)


def test_containerd_stops_what_outlived_its_crash(
    server_directory: Path, docker_registry: DockerRegistry, small_layer: Path, tmp_path: Path
) -> None:
    write_layout(tmp_path / "layout", [small_layer], "plain", command=["/bin/sleep", "600"])
    reference = docker_registry.push_layout(tmp_path / "layout", "plain", "survivor:plain")
    directory = server_directory / "crashed"
    with Containerd(directory) as containerd:
        containerd.ctr("images", "pull", "--plain-http", reference)
        containerd.ctr("run", "--detach", reference, "survivor")
        listed = containerd.ctr("tasks", "list").split()
        container = int(listed[listed.index("survivor") + 1])
        containerd.kill()
        assert Path(f"/proc/{container}/exe").exists()
    assert not Path(f"/proc/{container}/exe").exists()
    assert not _mounts_below(directory)
    assert not _processes_naming(directory)


def test_containerd_with_cri_serves_cri(as_root: None, server_directory: Path) -> None:
    with Containerd(server_directory / "cri", cri=True) as containerd:
        lines = containerd.ctr("plugins", "list").splitlines()
    assert any("cri" in line.split()[1] and line.split()[-1] == "ok" for line in lines if line)


def test_the_go_tools_build_estargz_of_the_odd_layers(go_images: GoImages, odd_layers: list[Path]) -> None:
    plain = _get(go_images.push_plain(odd_layers))
    reference = go_images.push_estargz(odd_layers)
    assert go_images.push_estargz(odd_layers) == reference
    manifest = _get(reference)
    assert len(manifest["layers"]) == len(plain["layers"]) == 3
    for layer, before in zip(manifest["layers"], plain["layers"], strict=True):
        assert layer["annotations"][_TOC_DIGEST].startswith("sha256:")
        assert layer["digest"] != before["digest"]
    small_chunks = _get(go_images.push_estargz(odd_layers, chunk_size=100_000))
    assert small_chunks["layers"][0]["digest"] != manifest["layers"][0]["digest"]


def _mounts_below(directory: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]


def _processes_naming(directory: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes()
        except OSError:
            continue
        if os.fsencode(directory) in command:
            found.append(command.decode(errors="replace"))
    return found
