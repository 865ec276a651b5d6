"""References, digests, platforms and manifests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer.api.oci import (
    Digest,
    Reference,
    parse_digest,
    parse_reference,
)
from lazylayer.errors import FormatError, InvalidReferenceError

DIGEST = Digest("sha256:" + "a" * 64)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("debian", Reference("library/debian", "docker.io", "latest")),
        ("debian:12", Reference("library/debian", "docker.io", "12")),
        ("user/app", Reference("user/app", "docker.io", "latest")),
        ("index.docker.io/user/app:1", Reference("user/app", "docker.io", "1")),
        ("localhost/app", Reference("app", "localhost", "latest")),
        ("localhost:5000/app:1", Reference("app", "localhost:5000", "1")),
        ("[::1]:5000/app:1", Reference("app", "[::1]:5000", "1")),
        ("registry.test/a/b/c:1.2-3_4", Reference("a/b/c", "registry.test", "1.2-3_4")),
        (f"registry.test/a@{DIGEST}", Reference("a", "registry.test", "", DIGEST)),
        (f"registry.test/a:1@{DIGEST}", Reference("a", "registry.test", "1", DIGEST)),
        ("oci:/images/app:1", Reference("/images/app", tag="1", scheme="oci")),
        ("oci:relative", Reference("relative", scheme="oci")),
        ("oci:/with:colon/app", Reference("/with:colon/app", scheme="oci")),
        ("oci-archive:/images/app.tar:1", Reference("/images/app.tar", tag="1", scheme="oci-archive")),
        (f"oci:/images/app@{DIGEST}", Reference("/images/app", digest=DIGEST, scheme="oci")),
        ("shelf://anything at all", Reference("anything at all", scheme="shelf")),
    ],
)
def test_references_are_understood_and_written_back(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        " debian",
        "registry.test/UPPER",
        "registry.test/",
        "registry.test/a:",
        "registry.test/a@sha256:12",
        "a//b",
        "oci:",
        "a:b:c",
        "registry.test/../etc",
        "-host-.test/a",
        "registry.test/a\0",
        "registry.test/a:tag with space",
        "oci:/a:bad tag",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_reference(text)


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReferenceError:
        return
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    "text", ["sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha512:" + "a" * 128, "a" * 64, DIGEST + "\n"]
)
def test_only_sha256_digests_are_digests(text: str) -> None:
    with pytest.raises(FormatError, match="not a digest"):
        parse_digest(text)


def test_a_path_may_be_written_as_a_url() -> None:
    assert parse_reference("oci:///a/b:tag") == parse_reference("oci:/a/b:tag")
