"""What is encoded is decoded again, and every layer that is indexed inflates to its archive, span by span."""

from __future__ import annotations

import io
import random
import tarfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazylayer.api.oci import sha256_digest
from lazylayer_ztoc.contents import read_contents
from lazylayer_ztoc.decoding import decode_ztoc
from lazylayer_ztoc.encoding import encode_ztoc
from lazylayer_ztoc.inflating import SpanInflater
from lazylayer_ztoc.layerindexing import index_layer
from lazylayer_ztoc.model import WINDOW_SIZE, Checkpoint, FileRecord, Ztoc

OFFSETS = st.integers(0, (1 << 62) - 1)
IDS = st.integers(0, (1 << 32) - 1)
NAMES = st.binary(max_size=40)
RECORDS = st.builds(
    FileRecord,
    name=NAMES,
    type=st.sampled_from(["reg", "dir", "symlink", "hardlink", "char", "block", "fifo"]),
    data_offset=OFFSETS,
    size=OFFSETS,
    linkname=NAMES,
    mode=st.integers(0, 0o177777),
    uid=IDS,
    gid=IDS,
    uname=NAMES,
    gname=NAMES,
    mtime_ns=st.integers(-62_135_596_800, 253_402_300_799).map(lambda seconds: seconds * 1_000_000_000)
    | st.integers(-(10**18), 4 * 10**18),
    devmajor=OFFSETS,
    devminor=OFFSETS,
    pax=st.lists(st.tuples(NAMES, st.binary(max_size=300)), max_size=3).map(tuple),
)


@given(
    files=st.lists(RECORDS, max_size=5).map(tuple), spans=st.integers(1, 4), seed=st.integers(0, 99), tar=st.booleans()
)
@settings(max_examples=150, deadline=None)
def test_what_is_encoded_is_decoded(files: tuple[FileRecord, ...], spans: int, seed: int, tar: bool) -> None:
    chance = random.Random(seed)
    checkpoints = [Checkpoint(10, 0)]
    for _ in range(spans - 1):
        last = checkpoints[-1]
        window = chance.randbytes(WINDOW_SIZE)
        checkpoints.append(Checkpoint(last.in_offset + 1000, last.out_offset + 5000, chance.randrange(8), window))
    if tar:
        checkpoints = [Checkpoint(1000 * number, 1000 * number) for number in range(spans)]
    ztoc = Ztoc(
        build_tool="tests",
        compressed_size=1000 * spans,
        plain_size=chance.randrange(1 << 40),
        compression="uncompressed" if tar else "gzip",
        span_size=1000,
        checkpoints=tuple(checkpoints),
        span_digests=tuple(sha256_digest(b"%d" % number) for number in range(spans)),
        files=files,
    )
    assert decode_ztoc(encode_ztoc(ztoc)) == ztoc


@pytest.mark.parametrize("level", [1, 6, 9])
@pytest.mark.parametrize("members", [1, 5])
def test_indexed_layers_are_read(level: int, members: int) -> None:
    chance = random.Random(level)
    words = [chance.randbytes(chance.randrange(1, 9)) for _ in range(500)]
    contents = {f"{number}": b"".join(chance.choices(words, k=chance.randrange(6000))) for number in range(30)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    plain = out.getvalue()
    size = len(plain) // members + 1
    parts = []
    for start in range(0, len(plain), size):
        compressor = zlib.compressobj(level, zlib.DEFLATED, 31, 4)
        parts.append(compressor.compress(plain[start : start + size]) + compressor.flush())
    layer = b"".join(parts)
    ztoc = decode_ztoc(encode_ztoc(index_layer(io.BytesIO(layer), 10_000, "tests").ztoc))
    assert len(ztoc.checkpoints) > 10
    assert {checkpoint.bits for checkpoint in ztoc.checkpoints} > {0}
    tree, chunks = read_contents(ztoc)
    inflate = SpanInflater(ztoc)
    for name, data in contents.items():
        entry = tree.lookup(name.encode())
        assert entry is not None
        found = b""
        for number in range(entry.first_chunk, entry.first_chunk + entry.chunk_count):
            chunk, (start, end) = chunks[number], chunks.member_range(chunks.member_of(number))
            found += inflate(layer[start:end], chunk.inner + chunk.size, start)[chunk.inner :]
        assert found == data
