"""Decode JSON from outside: registries, archives, files of other programs."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from lazylayer.errors import FormatError

__all__ = ["decode_json"]

_Value = TypeVar("_Value")


def decode_json(data: bytes | bytearray, shape: type[_Value]) -> _Value:
    """Decode `data` as JSON of type `shape`.

    Raises FormatError for everything that is not: malformed JSON, invalid UTF-8, values of another type,
    and nesting too deep to decode. The caller's message says where the data came from.
    """
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.DecodeError as error:
        raise FormatError(str(error)) from error
    except UnicodeDecodeError as error:
        raise FormatError(f"invalid UTF-8 ({error.reason})") from error
    except RecursionError as error:
        raise FormatError("nested too deeply") from error
