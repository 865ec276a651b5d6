"""Read tables, vectors and strings of a flatbuffer of a stranger, every bound checked.

A table begins with the distance to its *vtable*, which says where in the table each field lies. Tables mostly share
vtables, so each vtable is checked and compiled once, and a table is then read by one call. Source: "FlatBuffer
Internals" of Google's flatbuffers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

from lazylayer.errors import FormatError

__all__ = ["Flatbuffer", "Table"]

_VTABLE = struct.Struct("<HH")
_SIGNED = struct.Struct("<i")
_UNSIGNED = struct.Struct("<I")
_SIZES = {"b": 1, "i": 4, "I": 4, "q": 8}
_MOST_LAYOUTS = 1000
"""Vtables to remember; a writer needs one or two for each kind of table."""


class Table(NamedTuple):
    """A table: its place in the buffer, the place of each field in it, and their values; 0 for fields left out.

    A value that refers to something is the distance to it from the field's own place.
    """

    at: int
    offsets: tuple[int, ...]
    values: tuple[int, ...]


class _Layout(NamedTuple):
    """A compiled vtable: how to read all fields, and to put them in order."""

    read: Callable[..., tuple[Any, ...]]
    order: Callable[[tuple[int, ...]], tuple[int, ...]]
    offsets: tuple[int, ...]


class Flatbuffer:
    """A flatbuffer that is being read. Raises FormatError for what lies outside of it. Used by one thread.

    Strings and tables may be shared. Altogether no more is read than `share` times the buffer's size and a megabyte,
    so that a small buffer cannot become large by sharing.
    """

    def __init__(self, data: bytes, share: int = 4) -> None:
        self._data = data
        self._size = len(data)
        self._left = share * len(data) + 1024 * 1024
        self._layouts: dict[tuple[str, bytes], _Layout] = {}

    def root(self, fields: str) -> Table:
        """Return the root table; see `table`."""
        return self.table(self._number(0), fields)

    def table(self, at: int, fields: str) -> Table:
        """Return the table at `at`. `fields` has the kind of each field, as in the module struct; `I` may refer."""
        data = self._data
        try:
            start = at - _SIGNED.unpack_from(data, at)[0]
            if start < 0:
                raise FormatError("a vtable lies outside of the buffer")
            vtable_size, table_size = _VTABLE.unpack_from(data, start)
        except struct.error:
            raise FormatError("a table lies outside of the buffer") from None
        if at + table_size > len(data):
            raise FormatError("a table reaches past the end of the buffer")
        self._use(table_size)
        vtable = data[start : start + vtable_size]
        layout = self._layouts.get((fields, vtable)) or self._compile(fields, vtable, vtable_size)
        return Table(at, layout.offsets, layout.order((*layout.read(data, at), 0)))

    def string(self, place: int, distance: int, longest: int) -> bytes:
        """Return the string that the field at `place` refers to, of at most `longest` bytes; none if it is left out."""
        if not distance:
            return b""
        at = place + distance + 4
        try:
            (size,) = _UNSIGNED.unpack_from(self._data, at - 4)
        except struct.error:
            raise FormatError("a reference leads out of the buffer") from None
        if size > longest:
            raise FormatError(f"a string of {size} bytes is longer than {longest}")
        if at + size > self._size:
            raise FormatError("a string reaches past the end of the buffer")
        self._left -= size  # as in _use: a zTOC has six strings for each file
        if self._left < 0:
            self._use(0)
        return self._data[at : at + size]

    def vector(self, place: int, distance: int, item: int, most: int) -> tuple[int, int]:
        """Return where the items of a vector begin, and how many there are: at most `most`, of `item` bytes each."""
        if not distance:
            return 0, 0
        at = place + distance
        count = self._number(at)
        if count > most:
            raise FormatError(f"a list of {count} items is longer than {most}")
        if at + 4 + item * count > len(self._data):
            raise FormatError("a list reaches past the end of the buffer")
        self._use(item * count)
        return at + 4, count

    def references(self, start: int, count: int) -> list[int]:
        """Return the places that the items of a vector refer to."""
        distances = struct.unpack_from(f"<{count}I", self._data, start)
        return [place + distance for place, distance in zip(range(start, start + 4 * count, 4), distances, strict=True)]

    def _number(self, at: int) -> int:
        try:
            (number,) = _UNSIGNED.unpack_from(self._data, at)
        except struct.error:
            raise FormatError("a reference leads out of the buffer") from None
        return int(number)

    def _use(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise FormatError("its parts are shared so often that it would become too large")

    def _compile(self, fields: str, vtable: bytes, vtable_size: int) -> _Layout:
        """Check a vtable, and return how to read its tables."""
        if vtable_size < 4 or vtable_size % 2 or len(vtable) != vtable_size:
            raise FormatError(f"a vtable of {vtable_size} bytes is cut short")
        _, table_size, *offsets = struct.unpack(f"<{vtable_size // 2}H", vtable)
        offsets = (offsets + [0] * len(fields))[: len(fields)]
        known = sorted((offset, number) for number, offset in enumerate(offsets) if offset)
        form, end = "<", 0
        for offset, number in known:
            size = _SIZES[fields[number]]
            if offset < max(end, 4) or offset + size > table_size:
                raise FormatError(f"field {number} of a table cannot lie at {offset} of {table_size} bytes")
            form += f"{offset - end}x{fields[number]}"
            end = offset + size
        places = {number: index for index, (_, number) in enumerate(known)}
        order = itemgetter(*(places.get(number, len(known)) for number in range(len(fields))))
        several = order if len(fields) > 1 else lambda values: (order(values),)
        layout = _Layout(struct.Struct(form).unpack_from, several, tuple(offsets))
        if len(self._layouts) >= _MOST_LAYOUTS:
            self._layouts.clear()
        self._layouts[fields, vtable] = layout
        return layout
