"""Archives of `docker save`, and archives that both Docker and OCI tools read."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import msgspec
import pytest

import lazylayer_resolver_layout as plugin
from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Descriptor, Manifest, MediaType, Platform, ResolvedImage, parse_reference, sha256_digest
from lazylayer.errors import LazylayerError, NotFoundError
from lazylayer_building import ImageStore


def resolve(reference: str) -> ResolvedImage:
    image = plugin.lazylayer_resolve_image(parse_reference(reference), Platform("amd64", "linux"))
    assert image is not None
    return image


def open_store(reference: str) -> ImageStore:
    store = plugin.lazylayer_open_store(parse_reference(reference))
    assert store is not None
    return store


def write_docker_archive(path: Path, *, links: bool = False, names: list[str] | None = None) -> list[bytes]:
    """Write an archive as old versions of `docker save` did; return its plain layers, the first one twice."""
    layers = [b"first layer" * 1000, b"second layer" * 1000, b"first layer" * 1000]
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [sha256_digest(layer) for layer in layers]}}
    ).encode()
    manifest = [{"Config": "abc.json", "RepoTags": names, "Layers": [f"{number}/layer.tar" for number in range(3)]}]
    with tarfile.open(path, "w") as archive:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

        add("abc.json", config)
        add("0/layer.tar", layers[0])
        add("1/layer.tar", layers[1])
        if links:
            member = tarfile.TarInfo("2/layer.tar")
            member.type, member.linkname = tarfile.SYMTYPE, "../0/layer.tar"
            archive.addfile(member)
        else:
            add("2/layer.tar", layers[2])
        add("manifest.json", json.dumps(manifest).encode())
    return layers


@pytest.mark.parametrize("links", [False, True])
def test_docker_archive_is_read(tmp_path: Path, links: bool) -> None:
    layers = write_docker_archive(tmp_path / "a.tar", links=links, names=["host:5000/name:v1"])
    for reference in (f"docker-archive:{tmp_path}/a.tar", f"docker-archive:{tmp_path}/a.tar:v1"):
        image = resolve(reference)
        assert [layer.digest for layer in image.manifest.layers] == [sha256_digest(layer) for layer in layers]
        assert {layer.media_type for layer in image.manifest.layers} == {MediaType.DOCKER_LAYER}
        for layer, data in zip(image.manifest.layers, layers, strict=True):
            source = plugin.lazylayer_resolve_blob(parse_reference(reference), layer)
            assert source is not None
            assert b"".join(piece for _, piece in source.fetch([ByteRange(0, source.size)])) == data
            source.close()
    with pytest.raises(NotFoundError, match="name:v1"):
        resolve(f"docker-archive:{tmp_path}/a.tar:v2")


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{}",
        b"[]",
        b'[{"Config": "x"}]',
        b'[{"Config": "../x", "Layers": []}]',
        b'[{"Config": "\xff"}]',
        b"[" * 2000,
    ],
)
def test_bad_docker_archive_is_refused(tmp_path: Path, manifest: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("manifest.json")
        member.size = len(manifest)
        archive.addfile(member, io.BytesIO(manifest))
    with pytest.raises(LazylayerError):
        resolve(f"docker-archive:{tmp_path}/a.tar")


@pytest.mark.parametrize("scheme", ["oci-archive", "docker-archive"])
def test_written_archive_is_one_of_either_kind(tmp_path: Path, scheme: str) -> None:
    config_layers = gzip.compress(b"layer" * 1000)
    diff_id = sha256_digest(b"layer" * 1000)
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [diff_id]}}).encode()
    place = f"{scheme}:{tmp_path}/a.tar"
    store = open_store(place)
    for blob in (config, config_layers):
        store.put_blob(Descriptor("", sha256_digest(blob), len(blob)), io.BytesIO(blob))
    manifest = Manifest(
        config=Descriptor(MediaType.OCI_CONFIG, sha256_digest(config), len(config)),
        layers=[Descriptor(MediaType.OCI_LAYER_GZIP, sha256_digest(config_layers), len(config_layers))],
        media_type=MediaType.OCI_MANIFEST,
    )
    store.put_manifest(parse_reference(place), MediaType.OCI_MANIFEST, msgspec.json.encode(manifest))
    store.close()
    for other in ("oci-archive", "docker-archive"):
        reference = f"{other}:{tmp_path}/a.tar"
        image = resolve(reference)
        assert image.manifest.layers[0].digest == sha256_digest(config_layers)
        source = plugin.lazylayer_resolve_blob(parse_reference(reference), image.manifest.layers[0])
        assert source is not None
        assert b"".join(piece for _, piece in source.fetch([ByteRange(0, source.size)])) == config_layers
        source.close()
