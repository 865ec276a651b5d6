"""Messages of every kind of field: there and back, of newer versions, and bytes that no encoder makes."""

# ruff: noqa: RUF012 - msgspec copies the defaults of structs

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer_wire import DecodeError, Message


class Inner(Message, frozen=True):
    seconds: Annotated[int, 1] = 0


class Outer(Message, frozen=True):
    name: Annotated[str, 1] = ""
    data: Annotated[bytes, 2] = b""
    flag: Annotated[bool, 3] = False
    options: Annotated[list[str], 4] = []
    inner: Annotated[Inner | None, 5] = None
    inners: Annotated[list[Inner], 6] = []
    labels: Annotated[dict[str, str], 7] = {}
    always: Annotated[Inner, 8] = Inner()


class Older(Message, frozen=True):
    name: Annotated[str, 1] = ""


class Chain(Message, frozen=True):
    next: Annotated[Chain | None, 1] = None


text = st.text(max_size=20)
inners = st.builds(Inner, st.integers(-(1 << 63), (1 << 63) - 1))
outers = st.builds(
    Outer,
    text,
    st.binary(max_size=20),
    st.booleans(),
    st.lists(text, max_size=3),
    st.none() | inners,
    st.lists(inners, max_size=3),
    st.dictionaries(text, text, max_size=3),
    inners,
)


@given(outers)
def test_message_is_decoded_as_it_was_encoded(message: Outer) -> None:
    assert Outer.decode(message.encode()) == message


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        message = Outer.decode(data)
    except DecodeError:
        return
    assert Outer.decode(message.encode()) == message


@given(outers)
def test_fields_of_newer_versions_are_skipped(newer: Outer) -> None:
    fixed = b"\x65abcd" + b"\x61abcdefgh"  # field 12, of 4 and of 8 bytes
    assert Older.decode(newer.encode() + fixed) == Older(newer.name)
    assert Outer.decode(newer.encode() + fixed) == newer


@pytest.mark.parametrize(
    "encoded",
    ["0a", "0a05616263", "0aff", "00", "0a02c328", "08", "0801", "13", "80808080808080808080808001", "0d00"],
)
def test_bad_bytes_are_refused(encoded: str) -> None:
    with pytest.raises(DecodeError):
        Outer.decode(bytes.fromhex(encoded))


def test_deep_nesting_is_refused() -> None:
    data = b""
    for _ in range(30):
        data = Chain.decode(b"\x0a" + bytes([len(data)]) + data).encode()
    for _ in range(30):
        data = b"\x0a" + bytes([len(data)]) + data
    with pytest.raises(DecodeError, match="nested too deep"):
        Chain.decode(data)
