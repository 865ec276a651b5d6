"""The few fields of CRI messages that the proxy looks at; it passes messages on as they came.

Source: `runtime.v1` in `k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`, and the Protocol Buffers wire
format, https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

__all__ = ["Auth", "DecodeError", "decode_image", "decode_image_ref", "decode_pull"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class DecodeError(ValueError):
    """Bytes are not the message that they should be."""


class Auth(msgspec.Struct, frozen=True):
    """`AuthConfig`: kubelet's credentials for one pull, all fields empty for none."""

    username: str = ""
    password: str = ""
    auth: str = ""
    server_address: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return "Auth(…)"


_AUTH_FIELDS = dict(enumerate(Auth.__struct_fields__, 1))


def decode_pull(request: bytes) -> tuple[str, Auth]:
    """The image and the credentials of a `PullImageRequest`. Raises DecodeError."""
    image, auth = "", Auth()
    for number, value in _fields(request):
        if number == 1:
            image = _image_of(value)
        elif number == 2:
            texts = {_AUTH_FIELDS[field]: _text(each) for field, each in _fields(value) if field in _AUTH_FIELDS}
            auth = Auth(**texts)
    return image, auth


def decode_image(request: bytes) -> str:
    """The image of a `RemoveImageRequest`. Raises DecodeError."""
    image = ""
    for number, value in _fields(request):
        if number == 1:
            image = _image_of(value)
    return image


def decode_image_ref(response: bytes) -> str:
    """The image ID in a `PullImageResponse`. Raises DecodeError."""
    return next((_text(value) for number, value in _fields(response) if number == 1), "")


def _image_of(spec: bytes) -> str:
    return next((_text(value) for number, value in _fields(spec) if number == 1), "")


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise DecodeError("a string is not UTF-8") from None


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that have bytes: strings and messages."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(data, at)
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise DecodeError(f"a field has the unknown wire type {kind}")
        if size > len(data) - at:
            raise DecodeError("a field is cut off")
        if kind == _BYTES:
            yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for count in range(10):
        if at >= len(data):
            raise DecodeError("a number is cut off")
        value |= (data[at] & 0x7F) << (7 * count)
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise DecodeError("a number is longer than 64 bits")
