"""Ordinary layers that SOCI's own tool indexed, mounted from a registry, are what GNU tar extracts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from e2e.command_line import CommandLine
from images.gnu_tar import extract_for_overlay
from images.soci_image import LAYERS, archive_of, extract_image, image_manifest
from lazylayer.api.labels import (
    CRI_DIGEST,
    CRI_LAYERS,
    CRI_REFERENCE,
    MANIFEST_DIGEST,
)
from lazylayer.api.mounting import Missing
from lazylayer.api.oci import MediaType, sha256_digest
from lazylayer.errors import FormatError
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.program import Program
from lazylayer_testing.facts.trees import differences, snapshot_tree
from lazylayer_testing.servers.docker_registry import DockerRegistry

pytestmark = [pytest.mark.fuse, pytest.mark.servers]


@pytest.fixture(scope="module")
def directory(as_root: None, server_directory: Path) -> Iterator[Path]:
    directory = server_directory / "soci-images"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def layout(directory: Path) -> Path:
    return extract_image(directory / "layout")


def push(layout: Path, repository: str) -> None:
    """Push a layout as it is, its index as the tag `odd`. skopeo would compress the plain layer."""
    manifests: list[tuple[str, bytes]] = []
    for path in (layout / "blobs" / "sha256").iterdir():
        data = path.read_bytes()
        if data.startswith(b"{") and b'"schemaVersion"' in data:
            manifests.append((f"sha256:{path.name}", data))
            continue
        place = httpx.post(f"{repository}/blobs/uploads/").headers["Location"]
        httpx.put(place, params={**httpx.URL(place).params, "digest": f"sha256:{path.name}"}, content=data)
    for digest, data in sorted(manifests, key=lambda each: b'"manifests"' in each[1]):
        kind = json.loads(data).get("mediaType", MediaType.OCI_MANIFEST)
        for name in [digest, "odd"] if kind == MediaType.OCI_INDEX else [digest]:
            headers = {"Content-Type": kind}
            httpx.put(f"{repository}/manifests/{name}", content=data, headers=headers).raise_for_status()


@pytest.fixture(scope="module")
def reference(layout: Path, docker_registry: DockerRegistry) -> str:
    reference = f"{docker_registry.host}/soci:odd"
    push(layout, f"http://{docker_registry.host}/v2/soci")
    return reference


def check_mount(layout: Path, directory: Path, name: str, mountpoint: Path) -> None:
    """Compare a mounted layer with what GNU tar extracts of its archive."""
    digest = image_manifest(layout).layers[LAYERS.index(name)].digest
    archive, expected = directory / "layer.tar", directory / "expected"
    archive.write_bytes(archive_of(name, (layout / "blobs" / "sha256" / digest[7:]).read_bytes()))
    implicit = extract_for_overlay(archive, expected)
    try:
        shown = snapshot_tree(mountpoint, unknown_mtimes=implicit)
        assert differences(snapshot_tree(expected, unknown_mtimes=implicit), shown) == []
    finally:
        shutil.rmtree(expected)


@pytest.mark.parametrize(("frontend", "name"), [("frontend_fuse", "many members"), ("frontend_erofs", "plain")])
def test_mounted_layer_is_what_tar_extracts(
    directory: Path, layout: Path, reference: str, frontend: str, name: str
) -> None:
    with Program.load(overrides=[f"root={directory}", f"run={directory}"]) as program:
        found = program.hooks.of(frontend).probe_frontend()
    if isinstance(found, Missing):
        pytest.skip(str(found))
    command_line = CommandLine(directory / f"{frontend}-{name}", **{"mount.frontend": frontend})
    command_line.directory.mkdir()
    number = f"--layer={LAYERS.index(name)}"
    with command_line.mounted(reference, "--plain-http", number) as mountpoint:
        check_mount(layout, directory, name, mountpoint)


def test_labels_of_containerd_lead_to_the_index(directory: Path, layout: Path, reference: str) -> None:
    """CRI tells of the image's manifest by its digest, and nothing of the manifest's annotations."""
    manifest = image_manifest(layout)
    wanted = manifest.layers[LAYERS.index("level 1")].digest
    encoded = next(
        blob.read_bytes() for blob in (layout / "blobs" / "sha256").iterdir()
        if blob.stat().st_size < 1 << 16 and b"com.amazon.soci.index-digest" in blob.read_bytes()
        and b'"layers"' in blob.read_bytes()
    )  # fmt: skip
    labels = {CRI_REFERENCE: reference, CRI_DIGEST: wanted, CRI_LAYERS: wanted}
    place = directory / "by-labels"
    place.mkdir()
    overrides = [f"root={directory}/r", f"run={directory}/r", 'resolve.plain_http=["127.0.0.1"]']
    overrides += ["mount.frontend=frontend_fuse", "background.enabled=false"]
    with Program.load(overrides=overrides) as program:
        filesystem = Filesystem(program)
        try:
            with pytest.raises(FormatError, match="unsupported format"):
                filesystem.mount(str(place), labels)
            filesystem.mount(str(place), {**labels, MANIFEST_DIGEST: sha256_digest(encoded)})
            check_mount(layout, directory, "level 1", place)
        finally:
            filesystem.close()
