from __future__ import annotations

import contextlib
import gzip
import threading
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer.errors import FormatError
from lazylayer_tarlayers import inflate
from lazylayer_tarlayers.inflate import GzipReader, inflate_gzip_member

MIB = 1024 * 1024


@pytest.fixture(params=["installed", "zlib"], autouse=True)
def _inflater(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs with the inflater found here, and with the one that is always there."""
    if request.param == "zlib":
        monkeypatch.setattr(inflate, "_inflater", zlib)


def member(data: bytes, **options: Any) -> bytes:
    return gzip.compress(data, mtime=0, **options)


@pytest.mark.parametrize("size", [1, 2, 511, 512, 65535, 65536, 65537, 3 * MIB])
def test_inflates_exactly_what_is_asked_for(size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 3)
    assert inflate_gzip_member(member(content), size) == content[:size]
    assert inflate_gzip_member(memoryview(member(content[:size])), size) == content[:size]


def test_the_member_may_inflate_to_more_and_be_followed_by_others() -> None:
    data = member(b"chunk" + bytes(507)) + member(b"the next") + b"and a tail that is no gzip"
    assert inflate_gzip_member(data, 5) == b"chunk"
    assert inflate_gzip_member(data, 512) == b"chunk" + bytes(507)


def test_nothing_of_the_next_member_is_returned() -> None:
    with pytest.raises(FormatError, match="inflates to 5 bytes where 6 were promised"):
        inflate_gzip_member(member(b"chunk") + member(b"next"), 6)


def test_no_bytes_are_had_for_nothing() -> None:
    assert inflate_gzip_member(b"", 0) == b""


@given(content=st.binary(min_size=1, max_size=5000), data=st.data())
def test_any_cut_is_an_error_or_the_right_bytes(content: bytes, data: st.DataObject) -> None:
    packed = member(content)
    cut = packed[: data.draw(st.integers(0, len(packed)))]
    size = data.draw(st.integers(1, len(content) + 10))
    try:
        assert inflate_gzip_member(cut, size) == content[:size]
    except FormatError:
        assert len(cut) < len(packed) or size > len(content)


@given(content=st.binary(min_size=1, max_size=2000), at=st.integers(0, 10_000), bits=st.integers(1, 255))
def test_damage_is_an_error_or_other_bytes_of_the_right_length(content: bytes, at: int, bits: int) -> None:
    packed = bytearray(member(content))
    packed[at % len(packed)] ^= bits
    with contextlib.suppress(FormatError):
        assert len(inflate_gzip_member(bytes(packed), len(content))) == len(content)


@given(st.binary(max_size=300))
def test_noise_is_never_anything_but_a_format_error(noise: bytes) -> None:
    for data in (noise, b"\x1f\x8b\x08" + noise):
        with contextlib.suppress(FormatError):
            assert len(inflate_gzip_member(data, 100)) == 100


def test_a_bomb_is_inflated_no_further_than_asked() -> None:
    bomb = member(bytes(256 * MIB), compresslevel=1)
    tracemalloc.start()
    try:
        assert inflate_gzip_member(bomb, MIB) == bytes(MIB)
        assert tracemalloc.get_traced_memory()[1] < 2.5 * MIB + len(bomb)
    finally:
        tracemalloc.stop()


def test_threads_inflate_at_once() -> None:
    packed = [(member(bytes([number]) * MIB), bytes([number]) * MIB) for number in range(8)]
    wrong: list[int] = []

    def run(number: int) -> None:
        data, content = packed[number]
        if any(inflate_gzip_member(data, MIB) != content for _ in range(20)):
            wrong.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong


def test_a_reader_goes_through_one_member_piece_by_piece() -> None:
    content = bytes(range(256)) * 1000
    reader = GzipReader(member(content) + member(b"not mine"))
    pieces = []
    while piece := reader.read(1000):
        pieces.append(piece)
    assert b"".join(pieces) == content
    assert all(len(piece) == 1000 for piece in pieces)


def test_a_reader_tells_a_cut_member_from_its_end() -> None:
    with pytest.raises(FormatError, match="too early"):
        GzipReader(member(bytes(range(256)) * 10)[:-20]).read(100_000)
    with pytest.raises(FormatError, match="invalid"):
        GzipReader(b"not gzip at all, but long enough to be judged").read(10)
