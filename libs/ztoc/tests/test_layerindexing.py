"""Index layers: what Go makes of the same bytes, every span by itself, and streams that are broken."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import random
import struct
import tarfile
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazylayer.errors import FormatError, LazylayerError
from lazylayer_ztoc.decoding import decode_ztoc
from lazylayer_ztoc.encoding import encode_ztoc
from lazylayer_ztoc.layerindexing import NotIndexableError, index_layer
from lazylayer_ztoc.model import Checkpoint, FileRecord, Ztoc

DATA = Path(__file__).parent / "data"

_EMPTY_BLOCKS = {
    1: "04e081000000000010fc5f4300",
    2: "02082000",
    3: "04e081000000000010fc5f03",
    4: "020800",
    5: "04e081000000000010fc5f4300010400",
    6: "0200",
    7: "04e081000000000010fc5f43000100",
}
"""Empty deflate blocks, by how many bits of the last byte they leave to the next block."""


class _Dribble:
    """A blob that comes in pieces of random sizes."""

    def __init__(self, data: bytes, seed: int) -> None:
        self._file = io.BytesIO(data)
        self._random = random.Random(seed)

    def read(self, size: int) -> bytes:
        return self._file.read(self._random.randint(1, min(size, 20_000)))


def _archive(seed: int, files: int) -> bytes:
    """Return a tar whose text compresses to blocks that begin at any bit."""
    choose = random.Random(seed)
    words = [choose.randbytes(choose.randint(1, 9)) for _ in range(500)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=choose.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))) as tar:
        for number in range(files):
            info = tarfile.TarInfo(f"{'n' * choose.randint(1, 300)}/{number}")
            data = b"".join(choose.choices(words, k=choose.randint(0, 8_000)))
            info.size, info.mtime = len(data), choose.choice((0, 1_700_000_000, -1))
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _compress(plain: bytes, level: int, memory: int, members: int) -> bytes:
    size = max(-(-len(plain) // members), 1)
    pieces = []
    for start in range(0, len(plain), size):
        deflate = zlib.compressobj(level, zlib.DEFLATED, 31, memory)
        pieces.append(deflate.compress(plain[start : start + size]) + deflate.flush())
    return b"".join(pieces)


def _inflate(ztoc: Ztoc, number: int, data: bytes) -> bytes:
    """Inflate one span with nothing but its bytes and its checkpoint."""
    start, end = ztoc.span_range(number)
    plain = ztoc.plain_range(number)
    checkpoint, span = ztoc.checkpoints[number], data[start:end]
    assert f"sha256:{hashlib.sha256(span).hexdigest()}" == ztoc.span_digests[number]
    if checkpoint.bits:
        prefix = bytes.fromhex(_EMPTY_BLOCKS[checkpoint.bits])
        shared = prefix[-1] | (span[0] & (0xFF << (8 - checkpoint.bits)) & 0xFF)
        span = prefix[:-1] + bytes([shared]) + span[1:]
    found, size = b"", plain.end - plain.start
    inflater = zlib.decompressobj(-15, zdict=checkpoint.window)
    while len(found) < size:
        found += inflater.decompress(span, size - len(found))
        if inflater.eof and len(found) < size:
            offset = plain.start + len(found)
            return found + gzip.decompress(_member_at(ztoc, data, offset))[: size - len(found)]
    return found


def _member_at(ztoc: Ztoc, data: bytes, offset: int) -> bytes:
    """Return the bytes of `data` from the member on whose plain bytes begin at `offset`."""
    at = 0
    while data and at < offset:
        inflater = zlib.decompressobj(31)
        at += len(inflater.decompress(data))
        data = inflater.unused_data
    assert at == offset <= ztoc.plain_size
    return data


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 1 << 30), st.sampled_from((0, 1, 6, 9)), st.integers(1, 9), st.integers(1, 4), st.integers(1, 40_000)
)
def test_every_span_inflates_by_itself(seed: int, level: int, memory: int, members: int, span_size: int) -> None:
    plain = _archive(seed, 6)
    data = _compress(plain, level, memory, members)
    ztoc, diff_id = index_layer(_Dribble(data, seed), span_size, "a test")
    assert diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert (ztoc.compressed_size, ztoc.plain_size) == (len(data), len(plain))
    offsets = [checkpoint.out_offset for checkpoint in ztoc.checkpoints]
    assert offsets[0] == 0
    assert all(after - before > span_size for before, after in itertools.pairwise(offsets))
    for number in range(len(ztoc.checkpoints)):
        start, end = ztoc.plain_range(number)
        assert _inflate(ztoc, number, data) == plain[start:end]
    assert decode_ztoc(encode_ztoc(ztoc)) == ztoc


def test_files_are_those_of_the_archive() -> None:
    plain = _archive(5, 20)
    ztoc, _ = index_layer(io.BytesIO(gzip.compress(plain, 6)), 1 << 20, "a test")
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        assert [(file.name.decode(), file.data_offset, file.size) for file in ztoc.files] == [
            (member.name, member.offset_data, member.size) for member in tar
        ]


def test_a_plain_tar_has_spans_of_one_size() -> None:
    plain = _archive(6, 4)
    ztoc, diff_id = index_layer(_Dribble(plain, 1), 10_000, "a test")
    assert ztoc.compression == "uncompressed"
    assert diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    for number, digest in enumerate(ztoc.span_digests):
        part = plain[10_000 * number : 10_000 * (number + 1)]
        assert digest == f"sha256:{hashlib.sha256(part).hexdigest()}"
        assert ztoc.checkpoints[number].out_offset == ztoc.checkpoints[number].in_offset == 10_000 * number
    assert sum(end - start for start, end in map(ztoc.plain_range, range(len(ztoc.span_digests)))) == len(plain)


# --- beside SOCI's own builder --------------------------------------------------------------------


def test_the_index_is_that_of_soci() -> None:
    theirs = decode_ztoc(gzip.decompress((DATA / "odd.ztoc.gz").read_bytes()))
    ours, _ = index_layer(io.BytesIO((DATA / "odd.tar.gz").read_bytes()), 50_000, "go")
    assert len(ours.checkpoints) == 4
    # SOCI does not count the blocks that fill the archive's last record.
    assert msgspec.structs.replace(ours, plain_size=theirs.plain_size) == theirs
    assert 0 <= ours.plain_size - theirs.plain_size < 10_240
    assert decode_ztoc(encode_ztoc(ours)) == ours


# --- layers that are broken, or that a zTOC cannot describe ------------------------------------------


def _index(plain: bytes) -> Ztoc:
    return index_layer(io.BytesIO(gzip.compress(plain, 1)), 1 << 20, "a test").ztoc


def test_zeros_may_follow_and_nothing_else() -> None:
    data = gzip.compress(_archive(1, 3))
    assert index_layer(io.BytesIO(data + bytes(700)), 1 << 20, "a test").ztoc.compressed_size == len(data) + 700
    with pytest.raises(FormatError, match=f"ends at {len(data) + 5}, and something else follows"):
        index_layer(io.BytesIO(data + bytes(5) + b"else"), 1 << 20, "a test")
    with pytest.raises(FormatError, match="cut short"):
        index_layer(io.BytesIO(data[:-3]), 1 << 20, "a test")
    with pytest.raises(FormatError, match="invalid gzip stream: incorrect data check"):
        index_layer(io.BytesIO(data[:-8] + bytes(4) + data[-4:]), 1 << 20, "a test")


def test_an_empty_first_member_adds_no_span() -> None:
    data = gzip.compress(b"") + gzip.compress(_archive(1, 3))
    ztoc, _ = index_layer(io.BytesIO(data), 1 << 20, "a test")
    assert [checkpoint.out_offset for checkpoint in ztoc.checkpoints] == [0]


@pytest.mark.parametrize(("blob", "why"), [(b"", "it is empty"), (b"\x28\xb5\x2f\xfd" + bytes(9), "zstd")])
def test_what_has_no_checkpoints_is_said(blob: bytes, why: str) -> None:
    with pytest.raises(NotIndexableError, match=why):
        index_layer(io.BytesIO(blob), 1 << 20, "a test")


def test_sparse_files_are_refused() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("holes")
        info.size = 512
        info.pax_headers = {"GNU.sparse.map": "1024,512", "GNU.sparse.size": "9000", "GNU.sparse.name": "holes"}
        tar.addfile(info, io.BytesIO(bytes(512)))
    with pytest.raises(NotIndexableError, match=r"b'holes' is a sparse file, which a zTOC cannot describe"):
        _index(buffer.getvalue())


def test_global_headers_are_refused() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "a"}) as tar:
        tar.addfile(tarfile.TarInfo("a"))
    with pytest.raises(NotIndexableError, match="global headers"):
        _index(buffer.getvalue())


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_broken_stream_is_an_error_of_ours(choose: random.Random) -> None:
    data = bytearray(_compress(_archive(3, 4), 6, 5, 2))
    for _ in range(choose.randint(1, 4)):
        data[choose.randrange(len(data))] = choose.randrange(256)
    try:
        ztoc = index_layer(_Dribble(bytes(data[: choose.randint(1, len(data))]), 1), 10_000, "a test").ztoc
    except LazylayerError:
        return
    assert encode_ztoc(ztoc)


def test_times_are_written_as_go_writes_them() -> None:
    times = {
        0: b"1970-01-01T00:00:00Z",
        -1: b"1969-12-31T23:59:59.999999999Z",
        1_700_000_000_250_000_000: b"2023-11-14T22:13:20.25Z",
        -62_135_596_800 * 10**9: b"0001-01-01T00:00:00Z",
    }
    files = tuple(FileRecord(b"a", "reg", mtime_ns=time) for time in times)
    encoded = encode_ztoc(Ztoc("t", 1, 1, "uncompressed", 1, (Checkpoint(0, 0),), (), files))
    for text in times.values():
        assert struct.pack("<I", len(text)) + text + b"\0" in encoded
