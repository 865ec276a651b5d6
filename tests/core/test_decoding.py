"""JSON from outside: whatever a server sends, decoding it returns a value or raises FormatError."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer.api.decoding import decode_json
from lazylayer.errors import FormatError
from lazylayer_manifests import decode_config, decode_manifest_or_index

HOSTILE = [
    b"",
    b"\xff",
    b'{"mediaType":"\xff\xfe"}',
    b'{"a":"\xed\xa0\x80"}',
    b"[" * 2000 + b"]" * 2000,
    b'{"rootfs":' + b'{"a":' * 2000 + b"1" + b"}" * 2001,
    b'{"manifests":' + b"[" * 2000 + b"]" * 2000 + b"}",
    b'{"layers":[],"config":' + b'{"a":' * 2000 + b"1" + b"}" * 2001,
]


@pytest.mark.parametrize("data", HOSTILE)
def test_hostile_documents_are_format_errors(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_json(data, dict[str, Any])
    with pytest.raises(FormatError, match="somewhere: "):
        decode_manifest_or_index(data, "somewhere")
    with pytest.raises(FormatError, match="somewhere: "):
        decode_config(data, "somewhere")


def test_the_error_says_what_is_wrong() -> None:
    with pytest.raises(FormatError, match="invalid UTF-8"):
        decode_json(b'"\xff"', str)
    with pytest.raises(FormatError, match="nested too deeply"):
        decode_json(b"[" * 2000 + b"]" * 2000, Any)
    with pytest.raises(FormatError, match="Expected `int`"):
        decode_json(b'"text"', int)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=20))
def test_valid_json_is_returned(value: Any) -> None:
    assert decode_json(json.dumps(value).encode(), Any) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    with suppress(FormatError):
        decode_json(data, Any)
