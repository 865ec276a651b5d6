from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import tarfile
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import lazylayer_format_zstdchunked as plugin
from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import Descriptor, MediaType, sha256_digest
from lazylayer.errors import BuildError, FormatError, LayerError, VerificationError
from lazylayer_building import BuildOptions, BuiltLayer
from lazylayer_format_zstdchunked.annotations import TOC_CHECKSUMS, TOC_POSITIONS
from lazylayer_format_zstdchunked.footer import TocPlace, find_footer, make_footer, parse_position, skippable_frame
from lazylayer_format_zstdchunked.frames import inflate_member, zstd_compressor
from lazylayer_testing.facts.layers import read_file
from lazylayer_testing.synthetic import MemorySource, make_blob

ZSTD_TOC_CHECKSUM, PODMAN_TOC_CHECKSUM = TOC_CHECKSUMS
ZSTD_TOC_POSITION, PODMAN_TOC_POSITION = TOC_POSITIONS
CONTENT = os.urandom(3000)
FORMATS = ["zstdchunked", "zstdchunked-podman"]


def describe(blob: bytes, annotations: dict[str, str]) -> Descriptor:
    return Descriptor(MediaType.OCI_LAYER_ZSTD, sha256_digest(blob), len(blob), annotations)


def layer(*entries: dict[str, Any], filler: int = 0) -> tuple[bytes, bytes, int]:
    """A layer without its footer, its JSON, and where the compressed TOC is in it."""
    start = zstandard.compress(CONTENT) + zstandard.compress(b"headers") + os.urandom(filler)
    digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    file = {"name": "f", "type": "reg", "size": len(CONTENT), "digest": digest, "endOffset": 3, "modtime": None}
    file["modtime"] = "2020-01-01T00:00:00Z"
    toc = json.dumps({"version": 1, "entries": [file, *entries], "tarSplitDigest": "x"}).encode()
    return start + skippable_frame(zstandard.compress(toc)), toc, len(start) + 8


def finish(body: bytes, toc: bytes, start: int, *, new: bool = False, **changed: int) -> bytes:
    place = TocPlace(start, len(body) - start, len(toc))._replace(**changed)
    return body + make_footer(place, new=new)


def open_layer(blob: bytes, annotations: dict[str, str], verify: bool = True) -> LayerContents | None:
    return plugin.lazylayer_open_layer(make_blob(blob), describe(blob, annotations), verify)


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("named", [TOC_DIGEST, ZSTD_TOC_CHECKSUM, PODMAN_TOC_CHECKSUM])
def test_layer_is_opened_and_its_data_inflated(new: bool, named: str) -> None:
    body, toc, offset = layer({"name": "d/", "type": "dir"})
    blob = finish(body, toc, offset, new=new)
    promised = sha256_digest(toc if named == TOC_DIGEST else body[offset:])
    contents = open_layer(blob, {named: promised})
    assert contents is not None
    assert contents.toc_digest == sha256_digest(toc)
    entry = contents.tree.lookup(b"f")
    assert entry is not None
    assert read_file(contents, blob, entry) == CONTENT
    for other in (sha256_digest(b"other"), ""):
        with pytest.raises(VerificationError):
            open_layer(blob, {named: other} if other else {})
    assert open_layer(blob, {}, verify=False) is not None


def test_all_digests_that_are_named_must_hold() -> None:
    body, toc, offset = layer()
    blob = finish(body, toc, offset)
    right, wrong = sha256_digest(body[offset:]), sha256_digest(b"other")
    assert open_layer(blob, {ZSTD_TOC_CHECKSUM: right, PODMAN_TOC_CHECKSUM: right}) is not None
    for one, other in ((right, wrong), (wrong, right)):
        with pytest.raises(VerificationError, match=wrong):
            open_layer(blob, {ZSTD_TOC_CHECKSUM: one, PODMAN_TOC_CHECKSUM: other})


@pytest.mark.parametrize("named", [ZSTD_TOC_POSITION, PODMAN_TOC_POSITION])
def test_position_in_the_manifest_makes_one_exact_request(named: str) -> None:
    body, toc, offset = layer(filler=10_000_000)
    blob = finish(body, toc, offset)
    annotations: dict[str, str] = {TOC_DIGEST: sha256_digest(toc)}
    annotations[named] = f"{offset}:{len(body) - offset}:{len(toc)}:1"
    source = MemorySource(blob)
    opened = plugin.lazylayer_open_layer(make_blob(blob, source), describe(blob, annotations), True)
    assert opened is not None
    assert [(byte_range.start, byte_range.end) for (byte_range,) in source.asked] == [(offset, len(body))]


def test_large_toc_costs_a_second_request() -> None:
    body, toc, offset = layer(*({"name": os.urandom(20).hex(), "type": "fifo"} for _ in range(8000)))
    blob = finish(body, toc, offset)
    source = MemorySource(blob)
    descriptor = describe(blob, {TOC_DIGEST: sha256_digest(toc)})
    assert plugin.lazylayer_open_layer(make_blob(blob, source), descriptor, True) is not None
    assert len(source.asked) == 2
    assert source.asked_bytes < len(blob)


@pytest.mark.parametrize(
    "blob", [b"", b"x" * 63, bytes(1000), zstandard.compress(b"plain zstd" * 100), os.urandom(500)]
)
def test_other_blobs_are_left_to_others(blob: bytes) -> None:
    assert open_layer(blob, {}) is None
    gzip = Descriptor(MediaType.OCI_LAYER_GZIP, sha256_digest(blob), len(blob))
    assert plugin.lazylayer_open_layer(make_blob(blob), gzip, True) is None


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize(
    "changed",
    [
        {"offset": 1 << 63},
        {"offset": 5},
        {"size": 1 << 40},
        {"size": 0},
        {"size": 10},
        {"inflated": 0},
        {"inflated": 1 << 40},
        {"inflated": 100_000_000},
        {"inflated": 10},
    ],
)
def test_footer_that_lies_is_refused(new: bool, changed: dict[str, int]) -> None:
    body, toc, offset = layer()
    with pytest.raises(LayerError, match=r"layer sha256:.*zstd:chunked"):
        open_layer(finish(body, toc, offset, new=new, **changed), {TOC_DIGEST: sha256_digest(toc)})


@pytest.mark.parametrize(
    "text", ["", "1:2:3", "1:2:3:2", "-1:2:3:1", "1:2:3:1:5", "a:2:3:1", f"{10**30}:1:1:1", "1:2:3:١"]
)
def test_position_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_position(text)
    body, toc, offset = layer()
    with pytest.raises(FormatError):
        open_layer(finish(body, toc, offset), {ZSTD_TOC_POSITION: text, TOC_DIGEST: sha256_digest(toc)})


def test_unknown_kind_of_toc_is_refused() -> None:
    footer = struct.pack("<QQQQ8s", 8, 10, 10, 2, b"GnUlInUx")
    with pytest.raises(FormatError, match="kind 2"):
        open_layer(bytes(100) + footer, {})


def test_footer_of_podman_with_tar_split_is_understood() -> None:
    """As `ZstdChunkedFooterDataToBlob` of containers/storage packs it."""
    footer = struct.pack("<QQQQQQQ8s", 1000, 200, 900, 1, 1300, 50, 70, b"GNUlInUx")
    assert find_footer(bytes(100) + footer) == TocPlace(1000, 200, 900)


@given(st.integers(0, 1 << 62), st.integers(0, 1 << 62), st.integers(0, 1 << 62), st.booleans())
def test_footer_says_where_the_toc_is(offset: int, size: int, inflated: int, new: bool) -> None:
    footer = make_footer(TocPlace(offset, size, inflated), new=new)
    assert len(footer) == (72 if new else 48)
    assert find_footer(b"x" * 64 + footer) == TocPlace(offset, size, inflated)
    reader = zstandard.ZstdDecompressor().stream_reader(footer, read_across_frames=True)
    assert reader.read() == b""


@given(st.integers(0, 300), st.integers(1, 255), st.booleans())
def test_damage_never_passes(place: int, flip: int, new: bool) -> None:
    body, toc, offset = layer()
    damaged = bytearray(finish(body, toc, offset, new=new))
    damaged[-1 - place % len(damaged)] ^= flip
    try:
        contents = open_layer(bytes(damaged), {TOC_DIGEST: sha256_digest(toc)})
    except LayerError:
        return
    assert contents is None or contents.toc_digest == sha256_digest(toc)


# --- inflating -----------------------------------------------------------------------------------


def streamed(data: bytes) -> bytes:
    """A frame that does not say how much it holds."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(data) + compressor.flush()


@given(st.binary(max_size=3000), st.integers(0, 3000), st.booleans(), st.binary(max_size=20))
def test_first_bytes_of_a_member_come_out(data: bytes, size: int, stream: bool, behind: bytes) -> None:
    size = min(size, len(data))
    member = (streamed if stream else zstandard.compress)(data) + behind
    assert inflate_member(member, size) == data[:size]
    assert inflate_member(memoryview(member), size) == data[:size]


def test_what_promised_more_is_refused() -> None:
    for member in (zstandard.compress(b"x" * 100), streamed(b"x" * 100)):
        with pytest.raises(FormatError, match="promised"):
            inflate_member(member, 101)
    with pytest.raises(FormatError):
        inflate_member(zstandard.compress(CONTENT)[:100], 3000)
    with pytest.raises(FormatError):
        inflate_member(b"no frame at all", 10)


def test_bomb_is_not_inflated() -> None:
    bomb = zstandard.compress(bytes(300_000_000))
    assert inflate_member(bomb, 10) == bytes(10)


# --- building ------------------------------------------------------------------------------------


def build(form: str, files: dict[str, bytes], **options: Any) -> tuple[bytes, BuiltLayer]:
    source, out = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=source, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    source.seek(0)
    built = plugin.lazylayer_build_layer(form, source, out, BuildOptions(**options))
    return out.getvalue(), built


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "options", [{}, {"chunk_size": 1000}, {"min_chunk_size": 5000}, {"prefetch": [b"b"], "level": 1}]
)
def test_layer_is_built_and_read_again(form: str, options: dict[str, Any]) -> None:
    files = {"a": CONTENT, "b": b"b" * 100, "empty": b""}
    blob, built = build(form, files, **options)
    assert build(form, files, jobs=1, **options)[0] == blob
    annotations = built.descriptor.annotations
    for kept in ({*annotations}, {TOC_DIGEST}, {ZSTD_TOC_CHECKSUM}):
        contents = open_layer(blob, {key: value for key, value in annotations.items() if key in kept})
        assert contents is not None
        for name, content in files.items():
            entry = contents.tree.lookup(name.encode())
            assert entry is not None
            assert read_file(contents, blob, entry) == content
    assert (built.descriptor.digest, built.descriptor.size) == (sha256_digest(blob), len(blob))
    plain = zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True).read()
    assert built.diff_id == sha256_digest(plain)
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        assert set(files) < set(tar.getnames())
    assert blob[-8:] == (b"GNUlInUx" if form == "zstdchunked-podman" else b"GnUlInUx")


def test_levels_are_bounded() -> None:
    for level in (0, 23):
        with pytest.raises(BuildError, match="level"):
            zstd_compressor(level)
