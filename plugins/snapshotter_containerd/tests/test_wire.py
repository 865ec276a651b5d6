"""Messages against bytes that protoc's own encoders make, and against bytes that nobody should send."""

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer_snapshotter_containerd.api.snapshots import Info, ListSnapshotsResponse, PrepareSnapshotRequest
from lazylayer_snapshotter_containerd.api.types import Descriptor, Mount, Timestamp
from lazylayer_snapshotter_containerd.api.wire import DecodeError, Message

text = st.text(max_size=20)
numbers = st.integers(-(1 << 63), (1 << 63) - 1)
labels = st.dictionaries(text, text, max_size=4)
timestamps = st.builds(Timestamp, numbers, st.integers(0, 999_999_999))
infos = st.builds(Info, text, text, st.integers(0, 3), st.none() | timestamps, st.none() | timestamps, labels)


@given(st.builds(ListSnapshotsResponse, st.lists(infos, max_size=3)))
def test_what_was_encoded_is_decoded(message: ListSnapshotsResponse) -> None:
    assert ListSnapshotsResponse.decode(message.encode()) == message


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        message = ListSnapshotsResponse.decode(data)
    except DecodeError:
        return
    assert ListSnapshotsResponse.decode(message.encode()) == message


# Made with `protoc --encode`, from the .proto files of containerd.
@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        (Mount("bind", "/a", "", ["ro", "rbind"]), "0a0462696e6412022f612202726f22057262696e64"),
        (Descriptor("m", "sha256:0", 300, {"a": "b"}), "0a016d12087368613235363a3018ac022a060a0161120162"),
        (PrepareSnapshotRequest("s", "k", "", {"x": ""}), "0a017312016b22050a01781200"),
        (Timestamp(-1, 5), "08ffffffffffffffffff011005"),
        (Info("n", "", 3, Timestamp(1)), "0a016e180322020801"),
    ],
)
def test_known_encodings(message: Message, encoded: str) -> None:
    assert type(message).decode(bytes.fromhex(encoded)) == message
    # A decoder takes an empty value of a map entry left out, too, and that is how we write it.
    assert message.encode() == bytes.fromhex(encoded.replace("22050a01781200", "22030a0178"))


class Newer(Message, frozen=True):
    name: Annotated[str, 1] = ""
    number: Annotated[int, 9] = 0
    data: Annotated[bytes, 10] = b""
    flag: Annotated[bool, 11] = False


class Older(Message, frozen=True):
    name: Annotated[str, 1] = ""


def test_fields_of_newer_versions_are_skipped() -> None:
    newer = Newer("x", 7, b"\xff\0", True)
    assert Older.decode(newer.encode() + b"\x65abcd" + b"\x61abcdefgh") == Older("x")
    assert Newer.decode(newer.encode()) == newer


@pytest.mark.parametrize(
    "encoded",
    ["0a", "0a05616263", "0aff", "00", "0a02c328", "08", "0801", "13", "80808080808080808080808001", "0d00"],
)
def test_bad_bytes_are_refused(encoded: str) -> None:
    with pytest.raises(DecodeError):
        Mount.decode(bytes.fromhex(encoded))
