from __future__ import annotations

import gzip
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazylayer.errors import FormatError
from lazylayer_tarlayers import inflate as inflaters
from lazylayer_ztoc.inflating import inflate_span
from lazylayer_ztoc.model import WINDOW_SIZE, Checkpoint

ENGINES = ["zlib", "isal"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The library that inflates: the one that is chosen, and zlib."""
    if request.param == "zlib":
        monkeypatch.setattr(inflaters, "_inflater", zlib)
    else:
        pytest.importorskip("isal")
    return str(request.param)


def fixed_block(literals: bytes, last: bool) -> list[int]:
    """Return the bits of a block of literals with the fixed code of RFC 1951, 3.2.6."""
    bits = [int(last), 1, 0]
    for each in literals:
        code, size = (0x30 + each, 8) if each < 144 else (0x190 + each - 144, 9)
        bits += [code >> shift & 1 for shift in range(size - 1, -1, -1)]
    return bits + [0] * 7


def to_bytes(bits: list[int]) -> bytes:
    padded = bits + [0] * (-len(bits) % 8)
    return bytes(
        sum(bit << at for at, bit in enumerate(padded[start : start + 8])) for start in range(0, len(padded), 8)
    )


@given(first=st.binary(max_size=40), second=st.binary(min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_a_block_is_inflated_wherever_in_a_byte_it_begins(first: bytes, second: bytes) -> None:
    before = fixed_block(first, last=False)
    stream = to_bytes(before + fixed_block(second, last=True))
    in_offset = -(-len(before) // 8)
    bits = 8 * in_offset - len(before)
    checkpoint = Checkpoint(in_offset, len(first), bits, first.rjust(WINDOW_SIZE, b"\0"))
    span = stream[in_offset - (bits > 0) :]
    assert inflate_span(checkpoint, span, len(second)) == second
    assert inflate_span(checkpoint, memoryview(span), 1) == second[:1]


def test_every_number_of_bits(engine: str) -> None:
    seen = set()
    for length in range(40):
        first = bytes([200]) * length  # 9 bits each
        before = fixed_block(first, last=False)
        stream = to_bytes(before + fixed_block(b"plain bytes", last=True))
        in_offset = -(-len(before) // 8)
        bits = 8 * in_offset - len(before)
        seen.add(bits)
        checkpoint = Checkpoint(in_offset, length, bits, first.rjust(WINDOW_SIZE, b"\0"))
        assert inflate_span(checkpoint, stream[in_offset - (bits > 0) :], 11) == b"plain bytes", bits
    assert seen == set(range(8))


def test_a_block_refers_back_into_the_window(engine: str) -> None:
    window = random.Random(1).randbytes(WINDOW_SIZE)
    plain = window[12_000:30_000] + b"new"
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=window)
    span = compressor.compress(plain) + compressor.flush()
    assert len(span) < 2000
    assert inflate_span(Checkpoint(10, 99_999, 0, window), span, len(plain)) == plain


def members(*parts: bytes) -> bytes:
    return b"".join(gzip.compress(part, mtime=0) for part in parts)


def test_a_span_goes_on_in_other_members(engine: str) -> None:
    chance = random.Random(2)
    parts = [chance.randbytes(size) for size in (100, 0, 1, 70_000, 20, 0)]
    whole, plain = members(*parts), b"".join(parts)
    for size in (1, 100, 101, 102, 5000, 70_101, len(plain)):
        assert inflate_span(Checkpoint(10, 0), whole[10:], size) == plain[:size]


def test_thousands_of_empty_members_take_no_time_of_their_own() -> None:
    span = members(*[b""] * 50_000, b"end")[10:]
    assert inflate_span(Checkpoint(10, 0), span, 3) == b"end"


@pytest.mark.parametrize("size", [4, 1000])
@pytest.mark.parametrize(
    "span",
    [
        b"",
        b"\xff" * 20,
        members(b"abc")[10:],
        members(b"abc")[10:-3],
        members(b"abc")[10:] + b"no member",
        members(b"")[10:],
    ],
)
def test_broken_spans_are_refused(engine: str, span: bytes, size: int) -> None:
    for bits in (0, 5):
        with pytest.raises(FormatError, match="span"):
            inflate_span(Checkpoint(10, 0, bits), span, size)


def test_no_more_is_inflated_than_is_asked_for(engine: str) -> None:
    bomb = gzip.compress(bytes(50_000_000))[10:]
    assert inflate_span(Checkpoint(10, 0), bomb, 10) == bytes(10)
    assert inflate_span(Checkpoint(10, 0), bomb, 0) == b""
