"""Manifests and indexes from outside are decoded or refused, and the manifest of a platform is found."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer.api.oci import MAX_MANIFEST_SIZE, Descriptor, Digest, Index, Manifest, MediaType, Platform
from lazylayer.errors import FormatError, LazylayerError, NotFoundError
from lazylayer_manifests import choose_manifest, decode_config, decode_manifest_or_index

DIGEST = Digest("sha256:" + "a" * 64)


def descriptor(platform: str, media_type: str = MediaType.OCI_MANIFEST, digest: str = "a") -> Descriptor:
    return Descriptor(media_type, Digest("sha256:" + digest * 64), 1, platform=Platform.parse(platform))


def test_the_manifest_of_the_platform_is_chosen_by_variant() -> None:
    index = Index(
        [
            descriptor("linux/arm64/v9", digest="9"),
            descriptor("linux/arm64", digest="0"),
            descriptor("linux/arm64/v8", digest="8"),
            descriptor("linux/amd64", digest="1"),
        ]
    )
    wanted = ("linux/arm64/v8", "linux/arm64", "linux/arm64/v7", "linux/amd64")
    chosen = {text: choose_manifest(index, Platform.parse(text), "x").digest[7] for text in wanted}
    assert chosen == {"linux/arm64/v8": "8", "linux/arm64": "0", "linux/arm64/v7": "0", "linux/amd64": "1"}


def test_attestations_are_passed_over_and_a_missing_platform_is_told() -> None:
    index = Index([descriptor("unknown/unknown"), descriptor("linux/amd64")])
    assert choose_manifest(index, Platform.parse("linux/amd64"), "x").platform == Platform("amd64", "linux")
    with pytest.raises(NotFoundError, match=r"no manifest for linux/s390x; there is linux/amd64"):
        choose_manifest(index, Platform.parse("linux/s390x"), "x")


def test_manifests_and_indexes_are_told_apart() -> None:
    manifest = Manifest(
        config=Descriptor(MediaType.OCI_CONFIG, DIGEST, 2), layers=[Descriptor(MediaType.OCI_LAYER_GZIP, DIGEST, 3)]
    )
    assert decode_manifest_or_index(msgspec.json.encode(manifest), "x") == manifest
    index = Index([descriptor("linux/amd64")])
    assert decode_manifest_or_index(msgspec.json.encode(index), "x") == index


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{}", "neither a manifest nor an index"),
        (b"[]", "not a manifest"),
        (b"{", "not a manifest"),
        (b'{"schemaVersion":1,"fsLayers":[]}', "schema 1"),
        (b'{"manifests":[{"mediaType":"x","digest":"sha256:1","size":1}]}', "not a digest"),
        (b'{"layers":[],"config":{"mediaType":"x","digest":"sha256:' + b"a" * 64 + b'","size":-1}}', "size"),
        (b" " * (MAX_MANIFEST_SIZE + 1), "larger than"),
    ],
)
def test_a_bad_manifest_says_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode_manifest_or_index(data, "registry.test/a:1")


@given(st.binary(max_size=200))
def test_no_bytes_break_the_decoders(data: bytes) -> None:
    for decode in (decode_manifest_or_index, decode_config):
        try:
            decode(data, "x")
        except LazylayerError:
            continue
