"""The proxy's reader of CRI messages, against messages that the stand-in for kubelet writes by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer_keychain_cri.messages import PullImageRequest, PullImageResponse, RemoveImageRequest
from lazylayer_wire import DecodeError, Message

from .image_service import image_request, pull_request


@pytest.mark.parametrize("message", [PullImageRequest, PullImageResponse, RemoveImageRequest])
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_decode_error(message: type[Message], data: bytes) -> None:
    try:
        message.decode(data)
    except DecodeError:
        return


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_kubelet_s_fields_are_decoded(image: str, username: str, password: str) -> None:
    pull = PullImageRequest.decode(pull_request(image, username=username, password=password))
    assert (pull.image.image, pull.auth.username, pull.auth.password) == (image, username, password)
    assert RemoveImageRequest.decode(image_request(image)).image.image == image


def test_text_of_a_pull_hides_its_credentials() -> None:
    pull = PullImageRequest.decode(pull_request("image", username="ann", password="secret"))
    assert "secret" not in f"{pull!r} {pull}"
    assert "ann" not in f"{pull!r} {pull}"
