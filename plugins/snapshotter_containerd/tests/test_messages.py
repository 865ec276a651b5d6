"""The messages of containerd's API against bytes that protoc encodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer_snapshotter_containerd.api.snapshots import Info, ListSnapshotsResponse, PrepareSnapshotRequest
from lazylayer_snapshotter_containerd.api.types import Descriptor, Mount, Timestamp
from lazylayer_wire import DecodeError, Message

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
