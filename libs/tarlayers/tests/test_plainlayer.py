from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lazylayer.api.oci import Descriptor, MediaType, sha256_digest
from lazylayer.errors import FormatError, LayerError, UnavailableError, VerificationError
from lazylayer_tarlayers.plainlayer import PlainLayer
from lazylayer_tarlayers.wholeblob import BlobStream
from lazylayer_testing.synthetic import MemorySource

PLAIN = os.urandom(100_000) + bytes(3_000_000) + b"end"


def stream(data: bytes, advance: Callable[[int], None] = lambda _: None) -> BlobStream:
    descriptor = Descriptor(MediaType.OCI_LAYER_GZIP, sha256_digest(data), len(data))
    return BlobStream(MemorySource(data, piece=50_000), descriptor, advance)


def several_members(data: bytes) -> bytes:
    return b"".join(gzip.compress(data[at : at + 700_000]) for at in range(0, len(data), 700_000))


def several_frames(data: bytes) -> bytes:
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    frames = [zstandard.compress(data[at : at + 700_000]) for at in range(0, len(data), 700_000)]
    return skippable + skippable.join(frames) + skippable


def streamed_zstd(data: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    return compressor.compress(data) + compressor.flush()


PACKERS: list[Callable[[bytes], bytes]] = [
    bytes,
    gzip.compress,
    several_members,
    lambda data: gzip.compress(data) + bytes(100_000),
    lambda data: gzip.compress(b"") + gzip.compress(data),
    zstandard.compress,
    several_frames,
    streamed_zstd,
]


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("size", [1, 511, 70_000, -1])
def test_whatever_it_is_compressed_with_the_archive_comes_out(pack: Callable[[bytes], bytes], size: int) -> None:
    data = PLAIN[:200_000] if size == 1 else PLAIN
    counted: list[int] = []
    blob = pack(data)
    layer = PlainLayer(stream(blob, counted.append), sha256_digest(data))
    read = b"".join(iter(lambda: layer.read(size), b""))
    assert read == data
    assert layer.finish() == sha256_digest(data)
    assert sum(counted) == len(blob)


def test_rest_behind_the_archive_is_read_and_verified() -> None:
    layer = PlainLayer(stream(gzip.compress(PLAIN)), sha256_digest(PLAIN))
    layer.read(10)
    assert layer.finish() == sha256_digest(PLAIN)
    layer = PlainLayer(stream(gzip.compress(PLAIN)), sha256_digest(b"something else"))
    layer.read(10)
    with pytest.raises(VerificationError, match="config"):
        layer.finish()


def test_blob_must_be_what_was_promised() -> None:
    descriptor = Descriptor(MediaType.OCI_LAYER, sha256_digest(b"another"), len(PLAIN))
    with pytest.raises(VerificationError, match="damaged"):
        BlobStream(MemorySource(PLAIN), descriptor, lambda _: None).read()
    with pytest.raises(UnavailableError, match="promised"):
        BlobStream(MemorySource(PLAIN + b"x"), descriptor, lambda _: None)


def test_source_that_ends_early_is_noticed() -> None:
    source = MemorySource(PLAIN)
    source.size += 10
    descriptor = Descriptor(MediaType.OCI_LAYER, sha256_digest(PLAIN), source.size)
    with pytest.raises(UnavailableError, match="ended"):
        BlobStream(source, descriptor, lambda _: None).read()


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, several_members])
@pytest.mark.parametrize("cut", [1, 5, 1000])
def test_cut_stream_is_refused(pack: Callable[[bytes], bytes], cut: int) -> None:
    blob = pack(PLAIN)[:-cut]
    with pytest.raises(LayerError):
        PlainLayer(stream(blob), sha256_digest(PLAIN)).finish()


@given(st.integers(0, 1 << 30), st.integers(1, 255), st.sampled_from([gzip.compress, zstandard.compress]))
def test_damaged_stream_never_passes(at: int, flip: int, pack: Callable[[bytes], bytes]) -> None:
    data = PLAIN[90_000:101_000]
    blob = bytearray(pack(data))
    blob[at % len(blob)] ^= flip
    with suppress(LayerError):
        assert PlainLayer(stream(bytes(blob)), sha256_digest(data)).finish() == sha256_digest(data)


def test_garbage_behind_gzip_is_refused() -> None:
    with pytest.raises(FormatError, match="something else"):
        PlainLayer(stream(gzip.compress(PLAIN) + b"garbage")).finish()


def test_bomb_is_inflated_piece_by_piece() -> None:
    """1 GiB of zeros in 1 MB: what is held at any time is what was asked for."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(1024)) + compressor.flush()
    layer = PlainLayer(stream(bomb))
    for _ in range(5):
        assert len(layer.read(1000)) == 1000
    assert layer.size == 5000
    layer.close()
    assert layer._ready.qsize() <= 6


def test_zstd_frame_that_wants_too_much_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=29, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(FormatError, match="zstd"):
        PlainLayer(stream(compressor.compress(b"small") + compressor.flush())).finish()
