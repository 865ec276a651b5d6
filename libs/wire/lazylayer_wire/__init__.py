"""Protocol Buffers messages as frozen structs, without generated code.

    class Mount(Message, frozen=True):
        type: Annotated[str, 1] = ""
        options: Annotated[list[str], 4] = []

    Mount.decode(Mount(type="bind").encode())

A field is `Annotated[type, number]` and has proto3's default. Types: `str`, `bytes`, `bool`, `int`
(for int32, int64 and enums), another message or None, a `list` of strings or messages, and
`dict[str, str]` for `map<string, string>`. Decoding skips fields of other numbers, as proto3 demands.
The format is described at https://protobuf.dev/programming-guides/encoding/.

Decoding trusts no input: a truncated message, a number of more than 64 bits, messages nested too
deep, or a string that is not UTF-8 raise `DecodeError`. gRPC bounds the size of a message.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Self

import msgspec

__all__ = ["DecodeError", "Message"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
_WORD = 1 << 64
_MAX_DEPTH = 32


class DecodeError(ValueError):
    """The bytes are not an encoded message of this class."""


class Message(msgspec.Struct, frozen=True):
    """The base class of all messages; the module describes its fields."""

    def encode(self) -> bytes:
        """Return the message as bytes, without the fields that have their default."""
        out = bytearray()
        for field in _fields(type(self)):
            field.write(out, getattr(self, field.name))
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the message that `data` encodes. Raises DecodeError."""
        return cls._decode(memoryview(data), _MAX_DEPTH)

    @classmethod
    def _decode(cls, data: memoryview, depth: int) -> Self:
        if depth == 0:
            raise DecodeError("messages are nested too deep")
        by_number = _fields_by_number(cls)
        values: dict[str, Any] = {}
        for number, kind, value in _split(data):
            field = by_number.get(number)
            if field is not None:
                field.read(values, kind, value, depth)
        return cls(**values)


class _Field:
    """The codec of one field, made once per class."""

    def __init__(self, name: str, number: int, hint: Any) -> None:
        self.name = name
        self._number = number
        self._kind, self._encode, self._decode = _codec(hint)
        self._tag = _varint(number << 3 | self._kind)
        origin = typing.get_origin(hint)
        self._repeated = origin is list
        self._map = origin is dict

    def write(self, out: bytearray, value: Any) -> None:
        if self._repeated:
            for each in value:
                self._append(out, self._encode(each))
        elif self._map:
            for key, each in value.items():
                self._append(out, self._encode((key, each)))
        elif value or (value is not None and isinstance(value, Message)):
            self._append(out, self._encode(value))

    def read(self, values: dict[str, Any], kind: int, value: Any, depth: int) -> None:
        if kind != self._kind:
            raise DecodeError(f"field {self._number} ({self.name}) has wire type {kind}, not {self._kind}")
        decoded = self._decode(value, depth)
        if self._repeated:
            values.setdefault(self.name, []).append(decoded)
        elif self._map:
            key, each = decoded
            values.setdefault(self.name, {})[key] = each
        else:
            values[self.name] = decoded

    def _append(self, out: bytearray, encoded: bytes) -> None:
        out += self._tag
        if self._kind == _BYTES:
            out += _varint(len(encoded))
        out += encoded


class _MapEntry(Message, frozen=True):
    key: Annotated[str, 1] = ""
    value: Annotated[str, 2] = ""


_Codec = tuple[int, Callable[[Any], bytes], Callable[[Any, int], Any]]


def _codec(hint: Any) -> _Codec:
    """Return the wire type, the encoder and the decoder of a field, or of one element of a list."""
    origin = typing.get_origin(hint)
    if origin is list:
        return _codec(typing.get_args(hint)[0])
    if origin is dict:
        return _BYTES, lambda item: _MapEntry(*item).encode(), _decode_map_entry
    if origin is types.UnionType or origin is typing.Union:
        (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
    if hint is str:
        return _BYTES, str.encode, _decode_string
    if hint is bytes:
        return _BYTES, bytes, lambda value, _: bytes(value)
    if hint is bool:
        return _VARINT, lambda value: _varint(int(value)), lambda value, _: bool(value)
    if hint is int:
        return _VARINT, lambda value: _varint(value % _WORD), lambda value, _: _signed(value)
    message: type[Message] = hint
    return _BYTES, lambda value: value.encode(), lambda value, depth: message._decode(value, depth - 1)


@functools.cache
def _fields(message: type[Message]) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(message, include_extras=True)
    return tuple(_Field(name, *reversed(typing.get_args(hint))) for name, hint in hints.items())


@functools.cache
def _fields_by_number(message: type[Message]) -> dict[int, _Field]:
    return {field._number: field for field in _fields(message)}


def _split(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Split a message into fields: (number, wire type, the varint or the bytes)."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise DecodeError("a field has the number 0")
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield number, kind, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise DecodeError(f"field {number} has an unknown wire type: {kind}")
        if size > end - at:
            raise DecodeError(f"field {number} is truncated")
        yield number, kind, data[at : at + size]
        at += size


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if at + count >= len(data):
            raise DecodeError("a number is truncated")
        byte = data[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value % _WORD, at + count + 1
    raise DecodeError("a number is longer than 64 bits")


def _signed(value: int) -> int:
    return value - _WORD if value >> 63 else value


def _decode_string(value: memoryview, _: int) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(f"a string is not UTF-8: {error}") from None


def _decode_map_entry(value: memoryview, depth: int) -> tuple[str, str]:
    entry = _MapEntry._decode(value, depth - 1)
    return entry.key, entry.value
