"""Read the import statements of a Python module from its bytecode.

The file is read as data, and nothing in it is run: Python's own reader, `marshal`, trusts what it reads.
An image's author wrote it: reading takes linear time, nesting is limited, and references, by which one text
or list can stand in many places, never multiply work or memory. Sources: CPython's Python/marshal.c
(objects), Lib/importlib/_bootstrap_external.py (the header), Lib/_opcode_metadata.py and Lib/opcode.py of
each version (instructions), and their magic numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from lazylayer_prefetch_entrypoint.imports import MAX_NAME, MAX_NAMES, dotted_names

if TYPE_CHECKING:
    from lazylayer_prefetch_entrypoint.budget import Budget

__all__ = ["names_in_bytecode"]


class _Instructions(NamedTuple):
    """The opcodes that import statements compile to, and the start of code objects, in a version of Python."""

    import_name: int
    load_constant: int
    extend: int
    load_small: int = -1
    load_common: int = -1
    flags: int = 0
    """Bits of an import's argument in front of the number of its name."""
    numbers: int = 5
    """Numbers that a code object starts with."""


_OLD = _Instructions(108, 100, 144)
_VERSIONS = {
    3413: _OLD._replace(numbers=6),  # Python 3.8
    3425: _OLD._replace(numbers=6),
    3439: _OLD._replace(numbers=6),
    3495: _OLD,  # 3.11
    3531: _OLD,
    3571: _Instructions(75, 83, 71),
    3627: _Instructions(73, 82, 69, load_small=94),
    3666: _Instructions(72, 81, 67, load_small=93, load_common=80, flags=2),  # 3.15
}
_HEADER = 16
_REFERENCED = 0x80
_MAX_DEPTH = 60
_WIDEST = 32
"""Bits of an argument."""
_ATOMS = frozenset(b"NFT.S0")
_FIXED = {ord("I"): 8, ord("g"): 8, ord("y"): 16}
_SHORT_TEXTS = frozenset(b"zZ")
_TEXTS = frozenset(b"stuaA")
_COLLECTIONS = frozenset(b"([<>")
_CODE, _SHORT_TUPLE, _SLICE = ord("c"), ord(")"), ord(":")
_NUMBER, _LONG, _REFERENCE = ord("i"), ord("l"), ord("r")
_INTEGER = struct.Struct("<i")
_SIZE = struct.Struct("<I")


def names_in_bytecode(data: bytes, budget: Budget) -> list[bytes]:
    """Return what the top level of a module imports, as `names_in_source` does.

    The list is empty for a broken file and for an unknown version of Python. Raises OverBudgetError.
    """
    kinds = _VERSIONS.get(int.from_bytes(data[:2], "little"))
    if kinds is None or data[2:4] != b"\r\n":
        return []
    try:
        return list(_Code(kinds, *_Reader(data, kinds.numbers, budget).top_level()).imports(budget))
    except (IndexError, ValueError, struct.error):
        return []


class _Code:
    """The instructions of a code object, with its constants and names."""

    def __init__(self, kinds: _Instructions, code: bytes, constants: list[object], names: list[object]) -> None:
        self._kinds = kinds
        self._operations, self._arguments = code[0::2], code[1::2]
        self._constants = constants
        self._names = names

    def imports(self, budget: Budget) -> Iterator[bytes]:
        """Yield what its import statements import: each loads a level, then a list of names, then the module."""
        end = self._start_of_main(budget)
        left = MAX_NAMES
        at = -1
        while (at := self._operations.find(self._kinds.import_name, at + 1, end)) > 1 and left > 0:
            number, before = self._argument(at)
            members, before = self._loaded(before)
            level, _ = self._loaded(before)
            name = self._names[number >> self._kinds.flags]
            listed = members[:left] if isinstance(members, list) else []
            left -= max(len(listed), 1)
            if not isinstance(name, bytes) or not isinstance(level, int) or len(name) > MAX_NAME:
                continue
            module = b"." * min(level, _MAX_DEPTH) + name
            budget.spend(len(module) * max(len(listed), 1))
            yield from (
                dotted_names(module, [each for each in listed if isinstance(each, bytes)]) if listed else [module]
            )

    def _start_of_main(self, budget: Budget) -> int:
        """Return where `if __name__ == "__main__"` is, nearly always the last statement, or the end."""
        budget.spend(len(self._constants) + len(self._operations))
        if b"__main__" in self._constants:
            at = -1
            while (at := self._operations.find(self._kinds.load_constant, at + 1)) >= 0:
                if self._constants[self._argument(at)[0]] == b"__main__":
                    return at
        return len(self._operations)

    def _argument(self, at: int) -> tuple[int, int]:
        """Return the argument of the instruction at `at`, and the place of the instruction before it."""
        value, at, shift = self._arguments[at], at - 1, 8
        while at >= 0 and self._operations[at] == self._kinds.extend and shift < _WIDEST:
            value, at, shift = value | self._arguments[at] << shift, at - 1, shift + 8
        return value, at

    def _loaded(self, at: int) -> tuple[object, int]:
        """Return what the instruction at `at` loads, if it matters, and the place of the instruction before it."""
        value, before = self._argument(at)
        if self._operations[at] == self._kinds.load_constant:
            return self._constants[value], before
        return value if self._operations[at] == self._kinds.load_small else None, before


class _Reader:
    """A walk over one marshalled code object: texts become bytes, collections lists, and what does not matter None."""

    def __init__(self, data: bytes, numbers: int, budget: Budget) -> None:
        self._data = data
        self._at = _HEADER
        self._numbers = numbers
        self._budget = budget
        self._references: list[object] = []

    def top_level(self) -> tuple[bytes, list[object], list[object]]:
        """Return the instructions of the code object, its constants and its names.

        Raises IndexError, ValueError or struct.error if the file has none, and OverBudgetError.
        """
        if self._data[self._at] & ~_REFERENCED != _CODE:
            raise ValueError("not a code object")
        self._start_code(self._data[self._at])
        code, constants, names = (self._object(0) for _ in range(3))
        if not (isinstance(code, bytes) and isinstance(constants, list) and isinstance(names, list)):
            raise ValueError("not a code object")
        return code, constants, names

    def _start_code(self, kind: int) -> None:
        if kind & _REFERENCED:
            self._references.append(None)
        self._at += 1 + 4 * self._numbers

    def _object(self, depth: int) -> object:
        if depth > _MAX_DEPTH:
            raise ValueError("too deep")
        self._budget.spend(1)
        kind = self._data[self._at]
        plain = kind & ~_REFERENCED
        if plain in _SHORT_TEXTS:
            return self._text(kind, self._data[self._at + 1], 2)
        if plain == _REFERENCE:
            return self._references[self._size()]
        if plain in _TEXTS:
            (size,) = _SIZE.unpack_from(self._data, self._at + 1)
            return self._text(kind, size, 5)
        if plain == _SHORT_TUPLE:
            self._at += 2
            return self._collection(kind, self._data[self._at - 1], depth)
        if plain in _COLLECTIONS:
            return self._collection(kind, self._size(), depth)
        if plain == _CODE:
            self._code(kind, depth)
            return None
        if plain in _ATOMS:
            self._at += 1
            return None
        return self._other(kind, plain, depth)

    def _size(self) -> int:
        (value,) = _SIZE.unpack_from(self._data, self._at + 1)
        self._at += 5
        return int(value)

    def _text(self, kind: int, size: int, before: int) -> bytes:
        start = self._at + before
        text = self._data[start : start + size]
        self._budget.spend(len(text))
        self._at = start + size
        if kind & _REFERENCED:
            self._references.append(text)
        return text

    def _collection(self, kind: int, count: int, depth: int) -> list[object]:
        if count > len(self._data) - self._at:
            raise ValueError("more objects than bytes")
        found: list[object] = []
        if kind & _REFERENCED:
            self._references.append(found)
        for _ in range(count):
            found.append(self._object(depth + 1))
        return found

    def _code(self, kind: int, depth: int) -> None:
        self._start_code(kind)
        for _ in range(8):  # instructions, constants, names, names of variables, kinds or more names, file, names
            self._object(depth + 1)
        self._at += 4
        for _ in range(2 if self._numbers == 5 else 1):  # lines, and since 3.11 exceptions
            self._object(depth + 1)

    def _other(self, kind: int, plain: int, depth: int) -> object:
        value = None
        if plain == _NUMBER:
            (value,) = _INTEGER.unpack_from(self._data, self._at + 1)
            self._at += 5
        elif plain == _LONG:
            (digits,) = _INTEGER.unpack_from(self._data, self._at + 1)
            self._at += 5 + 2 * abs(digits)
        elif plain in _FIXED:
            self._at += 1 + _FIXED[plain]
        elif plain == _SLICE:
            self._at += 1
            return self._collection(kind, 3, depth)
        else:
            raise ValueError(f"an object of kind {plain}")
        if kind & _REFERENCED:
            self._references.append(value)
        return value
