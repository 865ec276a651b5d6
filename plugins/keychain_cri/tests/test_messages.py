from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lazylayer_keychain_cri.messages import DecodeError, decode_image, decode_image_ref, decode_pull
from servers.image_service import image_request, pull_request


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_decode_error(data: bytes) -> None:
    for decode in (decode_pull, decode_image, decode_image_ref):
        try:
            decode(data)
        except DecodeError:
            continue


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_what_was_encoded_is_decoded(image: str, username: str, password: str) -> None:
    decoded, auth = decode_pull(pull_request(image, username=username, password=password))
    assert (decoded, auth.username, auth.password) == (image, username, password)
    assert decode_image(image_request(image)) == image
