"""Change bytes and JSON as damage and attackers do: a little, a lot, in lengths, in structure."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["mutate_bytes", "mutate_json"]

_EDGES = (
    0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 63) - 1, (1 << 64) - 1,
)  # fmt: skip


def mutate_bytes(data: bytes, choose: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Return `data` with one to eight changes; `others` are inputs of the same kind to splice from."""
    changed = bytearray(data)
    for _ in range(choose.choice((1, 1, 1, 2, 3, 8))):
        _BYTE_CHANGES[choose.randrange(len(_BYTE_CHANGES))](changed, choose, others)
    return bytes(changed)


def _flip(data: bytearray, choose: random.Random, _: Sequence[bytes]) -> None:
    if data:
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)


def _overwrite(data: bytearray, choose: random.Random, _: Sequence[bytes]) -> None:
    if data:
        at = choose.randrange(len(data))
        data[at : at + choose.randrange(1, 9)] = choose.randbytes(choose.randrange(1, 9))


def _cut(data: bytearray, choose: random.Random, _: Sequence[bytes]) -> None:
    if data:
        at = choose.randrange(len(data))
        del data[at : at + choose.choice((1, 2, 16, 512, len(data)))]


def _repeat(data: bytearray, choose: random.Random, _: Sequence[bytes]) -> None:
    if data:
        at = choose.randrange(len(data))
        piece = bytes(data[at : at + choose.choice((1, 8, 512))])
        data[at:at] = piece * choose.choice((1, 2, 50))


def _number(data: bytearray, choose: random.Random, _: Sequence[bytes]) -> None:
    size = choose.choice((1, 2, 4, 8))
    if len(data) >= size:
        at = choose.randrange(len(data) - size + 1)
        value = choose.choice(_EDGES) & ((1 << 8 * size) - 1)
        data[at : at + size] = value.to_bytes(size, choose.choice(("little", "big")))


def _digits(data: bytearray, choose: random.Random, _: Sequence[bytes]) -> None:
    """Replace a run of decimal or octal digits, as numbers in texts and tar headers are."""
    places = [at for at, byte in enumerate(data[:65536]) if 0x30 <= byte <= 0x39]
    if places:
        at = choose.choice(places)
        end = at
        while end < len(data) and 0x30 <= data[end] <= 0x39:
            end += 1
        data[at:end] = choose.choice((b"0", b"-1", b"7" * (end - at), b"9" * 25, b"1e99", b""))


def _splice(data: bytearray, choose: random.Random, others: Sequence[bytes]) -> None:
    if others:
        other = choose.choice(others)
        at = choose.randrange(len(data) + 1)
        start = choose.randrange(len(other) + 1)
        data[at:] = other[start:]


def _zeros(data: bytearray, choose: random.Random, _: Sequence[bytes]) -> None:
    at = choose.randrange(len(data) + 1)
    data[at : at + choose.choice((0, 512, 1024))] = bytes(choose.choice((1, 512, 1024)))


_BYTE_CHANGES: Sequence[Callable[[bytearray, random.Random, Sequence[bytes]], None]] = (
    _flip, _overwrite, _cut, _repeat, _number, _digits, _splice, _zeros,
)  # fmt: skip


def mutate_json(value: Any, choose: random.Random) -> Any:
    """Return a JSON value with one to four changes, at random places of its structure."""
    for _ in range(choose.choice((1, 1, 2, 4))):
        value = _change(value, choose, 0)
    return value


def _change(value: Any, choose: random.Random, depth: int) -> Any:
    if depth < 12 and value and isinstance(value, dict | list) and choose.random() < 0.85:
        return _change_inside(value, choose, depth)
    return choose.choice(_VALUES)(value, choose)


def _change_inside(value: Any, choose: random.Random, depth: int) -> Any:
    value = value.copy()
    what = choose.random()
    if isinstance(value, list):
        at = choose.randrange(len(value))
        if what < 0.15:
            del value[at]
        elif what < 0.3:
            value.insert(at, value[choose.randrange(len(value))])
        elif what < 0.4:
            choose.shuffle(value)
        else:
            value[at] = _change(value[at], choose, depth + 1)
        return value
    key = choose.choice(list(value))
    if what < 0.15:
        del value[key]
    elif what < 0.25:
        value[_word(choose)] = value[key]
    else:
        value[key] = _change(value[key], choose, depth + 1)
    return value


def _word(choose: random.Random) -> str:
    return "".join(choose.choices(string.ascii_letters + "./:-\x00\u2028é", k=choose.choice((0, 1, 8, 300))))


_NAMES = (
    "", ".", "..", "/", "a/../b", "../../etc/passwd", "/etc/passwd", ".wh.", ".wh..wh..opq", ".wh...", "a\x00b",
    "x" * 300, "a/" * 500,
)  # fmt: skip

_VALUES: Sequence[Callable[[Any, random.Random], Any]] = (
    lambda value, choose: choose.choice(_EDGES),
    lambda value, choose: -choose.choice(_EDGES),
    lambda value, choose: choose.choice(_NAMES),
    lambda value, choose: _word(choose),
    lambda value, choose: choose.choice((None, True, False, [], {}, 1.5, 1e300)),
    lambda value, choose: [value] * choose.choice((0, 1, 3, 100)),
    lambda value, choose: {"name": value},
    lambda value, choose: value + choose.choice((1, -1, 1 << 20)) if type(value) is int else value,
    lambda value, choose: value[: len(value) // 2] if isinstance(value, str) else value,
)
