from __future__ import annotations

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import sha256_digest
from lazylayer_ztoc.model import WINDOW_SIZE, Checkpoint, Ztoc


def test_spans_share_the_byte_in_which_a_block_begins() -> None:
    window = bytes(WINDOW_SIZE)
    ztoc = Ztoc(
        build_tool="a test",
        compressed_size=500,
        plain_size=4096,
        compression="gzip",
        span_size=1024,
        checkpoints=(
            Checkpoint(in_offset=10, out_offset=0),
            Checkpoint(in_offset=200, out_offset=1100, bits=3, window=window),
            Checkpoint(in_offset=300, out_offset=2300, bits=0, window=window),
        ),
        span_digests=(sha256_digest(b""),) * 3,
        files=(),
    )
    assert [ztoc.span_range(number) for number in range(3)] == [
        ByteRange(10, 200),
        ByteRange(199, 300),
        ByteRange(300, 500),
    ]
    assert [ztoc.plain_range(number) for number in range(3)] == [
        ByteRange(0, 1100),
        ByteRange(1100, 2300),
        ByteRange(2300, 4096),
    ]
