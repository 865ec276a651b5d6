from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer_keychain_kube.api import _Stream
from lazylayer_keychain_kube.errors import ApiError


class Pieces(httpx.SyncByteStream):
    """A body that arrives as the network cut it."""

    def __init__(self, body: bytes, cuts: list[int]) -> None:
        ends = [*sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
        self.pieces = [body[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces


def stream(body: bytes, cuts: list[int]) -> _Stream:
    return _Stream(httpx.Response(200, stream=Pieces(body, cuts)), "test")


lines = st.lists(st.binary(min_size=1, max_size=20).map(lambda line: b"x" + line.replace(b"\n", b"")), max_size=8)
cuts = st.lists(st.integers(0, 200), max_size=10)


@given(lines, cuts)
def test_lines_do_not_depend_on_the_network(whole: list[bytes], cuts: list[int]) -> None:
    body = b"".join(line + b"\n" for line in whole)
    assert list(stream(body, cuts).lines(1000)) == whole
    # A line that was not finished when the connection ended is no event.
    assert list(stream(body + b'{"type": "ADD', cuts).lines(1000)) == whole


@given(cuts)
def test_sizes_are_bounded(cuts: list[int]) -> None:
    with pytest.raises(ApiError, match="larger than 100 bytes"):
        list(stream(b"x" * 300, cuts).lines(100))
    with pytest.raises(ApiError, match="larger than 100 bytes"):
        stream(b"x" * 101, cuts).read(100)
    assert stream(b"x" * 100, cuts).read(100) == b"x" * 100
