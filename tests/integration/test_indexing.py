"""`lazylayer index` beside a real registry: layers stay, and what SOCI's snapshotter looks for is there."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import zstandard

from images.lazy_layer import tar_of
from lazylayer.api.oci import MediaType, sha256_digest
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_tool_index.documents import SOCI_INDEX_V2

PAGE = Path(__file__).parents[2] / "docs" / "indexing.md"
TEXT = random.Random(1).randbytes(4000).hex().encode() * 60
LARGE, OTHER, SMALL = (tar_of({name: TEXT * count}) for name, count in (("large", 8), ("other", 6), ("small", 0)))
ANY = f"{MediaType.OCI_INDEX}, {MediaType.OCI_MANIFEST}, {MediaType.DOCKER_MANIFEST}, {MediaType.DOCKER_LIST}"


def write_layout(directory: Path, platforms: dict[str, list[tuple[str, bytes, bytes]]], *, docker: bool) -> Path:
    """Write an image, or for several platforms an index of images; layers are (media type, blob, tar)."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def write(data: bytes, kind: str) -> dict[str, Any]:
        (blobs / sha256_digest(data)[7:]).write_bytes(data)
        return {"mediaType": kind, "digest": sha256_digest(data), "size": len(data)}

    manifest_type, config_type = (
        (MediaType.DOCKER_MANIFEST, MediaType.DOCKER_CONFIG)
        if docker
        else (MediaType.OCI_MANIFEST, MediaType.OCI_CONFIG)
    )
    entries = []
    for architecture, layers in platforms.items():
        diff_ids = [sha256_digest(plain) for _, _, plain in layers]
        config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": write(json.dumps(config).encode(), config_type),
            "layers": [write(blob, kind) for kind, blob, _ in layers],
            "x-kept": architecture,
        }
        entry = write(json.dumps(manifest).encode(), manifest_type)
        entries.append({**entry, "platform": {"architecture": architecture, "os": "linux", "os.features": ["kept"]}})
    if len(entries) > 1:
        index_type = MediaType.DOCKER_LIST if docker else MediaType.OCI_INDEX
        index = {"schemaVersion": 2, "mediaType": index_type, "manifests": entries, "x-kept": True}
        entries = [write(json.dumps(index).encode(), index_type)]
    entries[0]["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return directory


def zipped(plain: bytes) -> tuple[str, bytes, bytes]:
    return MediaType.DOCKER_LAYER_GZIP, gzip.compress(plain, 6, mtime=0), plain


def run(*arguments: str | Path, code: int = 0) -> str:
    command = [Path(sys.executable).with_name("lazylayer"), "index", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def get(registry: DockerRegistry, repository: str, name: str) -> tuple[str, dict[str, Any]]:
    request = urllib.request.Request(f"{registry.url}/v2/{repository}/manifests/{name}", headers={"Accept": ANY})
    with urllib.request.urlopen(request) as answer:
        data = answer.read()
    return sha256_digest(data), json.loads(data)


def push(registry: DockerRegistry, layout: Path, repository: str, tag: str) -> str:
    """Push a layout with Docker's media types, which skopeo does not read, and return its reference."""
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    api = f"{registry.url}/v2/{repository}"

    def send(method: str, url: str, data: bytes, kind: str) -> str:
        request = urllib.request.Request(url, data, {"Content-Type": kind}, method=method)
        with urllib.request.urlopen(request) as answer:
            return str(answer.headers.get("Location", ""))

    def push_tree(descriptor: dict[str, Any], name: str) -> None:
        data = (layout / "blobs/sha256" / descriptor["digest"][7:]).read_bytes()
        if descriptor["mediaType"] in MediaType.MANIFESTS + MediaType.INDEXES:
            document = json.loads(data)
            for each in [*document.get("manifests", []), *document.get("layers", []), document.get("config")]:
                if each is not None:
                    push_tree(each, each["digest"])
            send("PUT", f"{api}/manifests/{name}", data, descriptor["mediaType"])
        else:
            place = send("POST", f"{api}/blobs/uploads/", b"", "application/octet-stream")
            send("PUT", f"{place}&digest={name}", data, "application/octet-stream")

    push_tree(entry, tag)
    return f"{registry.host}/{repository}:{tag}"


def test_every_platform_is_bound_to_its_index(docker_registry: DockerRegistry, tmp_path: Path) -> None:
    large, other, small = zipped(LARGE), zipped(OTHER), zipped(SMALL)
    zstd = (MediaType.OCI_LAYER_ZSTD, zstandard.compress(LARGE), LARGE)
    layout = write_layout(
        tmp_path / "layout", {"amd64": [large, small, zstd], "arm64": [large, other, large]}, docker=True
    )
    options = ("--plain-http", "--all-platforms", "--min-layer-size", "4000", "--work", tmp_path / "work", "--json")
    report = json.loads(run(*options, f"oci:{layout}:v1", f"{docker_registry.host}/indexed/all:v1"))
    assert [each["reason"] for each in report["layers"]] == [
        "",
        "smaller than 4000 bytes",
        "compressed with zstd, of which a zTOC can hold no checkpoints",
        "",
    ]
    assert not (tmp_path / "work").exists()

    digest, index = get(docker_registry, "indexed/all", "v1")
    assert digest == report["digest"]
    assert (index["mediaType"], index["x-kept"]) == (MediaType.OCI_INDEX, True)
    for image, artifact, layers in zip(
        index["manifests"][:2], index["manifests"][2:], ([large, small, zstd], [large, other, large]), strict=True
    ):
        assert image["platform"]["os.features"] == ["kept"]
        assert artifact["artifactType"] == SOCI_INDEX_V2
        assert artifact["platform"]["architecture"] == image["platform"]["architecture"]
        assert artifact["annotations"]["com.amazon.soci.image-manifest-digest"] == image["digest"]
        assert image["annotations"]["com.amazon.soci.index-digest"] == artifact["digest"]
        _, manifest = get(docker_registry, "indexed/all", image["digest"])
        assert manifest["annotations"] == {"com.amazon.soci.index-digest": artifact["digest"]}
        assert (manifest["mediaType"], manifest["config"]["mediaType"]) == (
            MediaType.OCI_MANIFEST,
            MediaType.OCI_CONFIG,
        )
        assert [each["digest"] for each in manifest["layers"]] == [sha256_digest(blob) for _, blob, _ in layers]
        _, soci = get(docker_registry, "indexed/all", artifact["digest"])
        assert soci["config"]["mediaType"] == SOCI_INDEX_V2
        indexed = dict.fromkeys(sha256_digest(blob) for kind, blob, _ in layers if "gzip" in kind and blob != small[1])
        assert [each["annotations"]["com.amazon.soci.image-layer-digest"] for each in soci["layers"]] == list(indexed)


def test_indexing_again_reads_nothing_and_changes_nothing(docker_registry: DockerRegistry, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"amd64": [zipped(LARGE)], "arm64": [zipped(OTHER)]}, docker=True)
    name = push(docker_registry, layout, "indexed/again", "v1")
    before, _ = get(docker_registry, "indexed/again", "v1")
    options = ("--plain-http", "--platform", "linux/amd64", "--min-layer-size", "0", "--work", tmp_path / "work")
    assert "indexed: " in run(*options, name)
    first, index = get(docker_registry, "indexed/again", "v1")
    assert first != before
    # The other platform stays, as an OCI image now, since registries do not mix those with Docker's.
    assert [each["mediaType"] for each in index["manifests"]] == [MediaType.OCI_MANIFEST] * 3
    assert "annotations" not in index["manifests"][1]
    assert "indexed before: " in run(*options, name)
    assert get(docker_registry, "indexed/again", "v1")[0] == first
    # Another span size is another index, which replaces the first one.
    assert "indexed: " in run(*options, "--span-size", "70000", name)
    changed, index = get(docker_registry, "indexed/again", "v1")
    assert changed != first
    assert len(index["manifests"]) == 3


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"amd64": [zipped(LARGE), zipped(OTHER)]}, docker=False)
    broken = layout / "blobs/sha256" / sha256_digest(zipped(OTHER)[1])[7:]
    good = broken.read_bytes()
    broken.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    options = ("--min-layer-size", "0", "--jobs", "1", "--work", tmp_path / "work")
    assert "invalid gzip stream: incorrect length check" in run(*options, f"oci:{layout}:v1", code=1)
    assert json.loads((layout / "index.json").read_text())["manifests"][0]["mediaType"] == MediaType.OCI_MANIFEST
    assert [each.suffix for each in (tmp_path / "work").iterdir()] == [".ztoc"]
    broken.write_bytes(good)
    # The first layer is not needed any more.
    large = layout / "blobs/sha256" / sha256_digest(zipped(LARGE)[1])[7:]
    large.write_bytes(bytes(large.stat().st_size))
    assert run(*options, f"oci:{layout}:v1").count("indexed: ") == 2
    assert not (tmp_path / "work").exists()


def test_a_layer_that_is_not_what_the_config_says_is_refused(tmp_path: Path) -> None:
    kind, blob, _ = zipped(LARGE)
    layout = write_layout(tmp_path / "layout", {"amd64": [(kind, blob, OTHER)]}, docker=False)
    message = run("--min-layer-size", "0", "--work", tmp_path / "work", f"oci:{layout}:v1", code=1)
    assert f"its archive has the digest {sha256_digest(LARGE)}, but the image config says" in message


def test_an_image_of_small_layers_stays_as_it_is(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"amd64": [zipped(LARGE)]}, docker=False)
    before = (layout / "index.json").read_text()
    message = run("--work", tmp_path / "work", f"oci:{layout}:v1", code=1)
    assert "no layer was indexed: smaller than 10485760 bytes" in message
    assert (layout / "index.json").read_text() == before


@pytest.mark.parametrize("example", re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL))
def test_examples_work(example: str, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", {"amd64": [zipped(LARGE)]}, docker=False)
    push(docker_registry, layout, "indexed/example", "1")
    done = subprocess.run(
        ["bash", "-euc", example],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "APP": f"{docker_registry.host}/indexed/example",
            "LAZYLAYER_ROOT": str(tmp_path / "root"),
        },
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "indexed: " in done.stdout
    name = f"{docker_registry.host}/indexed/example:1"
    read = subprocess.run(
        [Path(sys.executable).with_name("lazylayer"), "cat", "--plain-http", name, "large"],
        capture_output=True,
        check=True,
        env={**os.environ, "LAZYLAYER_ROOT": str(tmp_path / "root")},
        timeout=120,
    )
    assert read.stdout == TEXT * 8
