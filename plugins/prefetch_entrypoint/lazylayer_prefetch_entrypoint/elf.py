"""Read what an ELF file needs: its loader, its libraries, and the directories to look for them in.

Source: the System V ABI, "Object Files" (ELF header, program header) and "Dynamic Section"; elf(5).
No number in the file is trusted: every size and count is bounded, and a file that breaks a bound is not an
ELF file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lazylayer_prefetch_entrypoint.budget import Budget

__all__ = ["MAX_DIRECTORIES", "Needs", "read_constants", "read_needs"]

_MAGIC = b"\x7fELF"
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 15, 29
_MAX_PROGRAM_HEADERS = 256
_MAX_PROGRAM_HEADER = 256
_MAX_DYNAMIC = 64 * 1024
_MAX_STRINGS = 4 * 1024 * 1024
_MAX_NAME = 4096
_MAX_LIBRARIES = 1000
MAX_DIRECTORIES = 64
"""Directories to look for libraries in, of one file and of all that it is loaded for."""
_MAX_SECTIONS = 1000
_MAX_SECTION_HEADER = 256
_CONSTANTS = b".rodata"


_Read = Callable[[int, int], bytes]


class Needs(NamedTuple):
    """The path of the loader, empty for a library; names of libraries; directories to look for them.

    `rpath` counts for what the libraries need too, and is empty if there is a `runpath`.
    """

    loader: bytes = b""
    libraries: tuple[bytes, ...] = ()
    rpath: tuple[bytes, ...] = ()
    runpath: tuple[bytes, ...] = ()


def read_constants(read: _Read, max_size: int, budget: Budget) -> bytes:
    """Return the constants of a program or library, at most `max_size` bytes, or nothing if it has no such section.

    :param read: returns bytes of the file by offset and size, fewer at its end.

    Raises OverBudgetError.
    """
    try:
        return _read_constants(_paid(read, budget), max_size)
    except (struct.error, ValueError):
        return b""


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int


def read_needs(read: _Read, budget: Budget) -> Needs | None:
    """Return what a file needs, or None if it is broken or not an ELF file.

    :param read: returns bytes of the file by offset and size, fewer at its end.

    Raises OverBudgetError.
    """
    try:
        return _read(_paid(read, budget))
    except (struct.error, ValueError):
        return None


def _paid(read: _Read, budget: Budget) -> _Read:
    def read_and_pay(offset: int, size: int) -> bytes:
        data = read(offset, size)
        budget.spend(len(data))
        return data

    return read_and_pay


def _read(read: _Read) -> Needs | None:
    found = _read_header(read)
    if found is None:
        return None
    header, wide, order = found
    segments = list(_segments(read, header, wide, order))
    loader = next((read(each.offset, min(each.size, _MAX_NAME)) for each in segments if each.kind == _PT_INTERP), b"")
    dynamic = next((each for each in segments if each.kind == _PT_DYNAMIC), None)
    if dynamic is None:
        return Needs(loader.partition(b"\0")[0])
    entry = struct.Struct(order + ("qQ" if wide else "iI"))
    data = read(dynamic.offset, min(dynamic.size, _MAX_DYNAMIC))
    tags = list(
        takewhile(lambda each: each[0] != _DT_NULL, entry.iter_unpack(data[: len(data) - len(data) % entry.size]))
    )
    known = dict(reversed(tags))
    strings = _strings(read, segments, known.get(_DT_STRTAB, 0), known.get(_DT_STRSZ, 0))
    needed = islice((value for tag, value in tags if tag == _DT_NEEDED), _MAX_LIBRARIES)
    libraries = [_string(strings, value) for value in needed]
    paths = {tag: _directories(strings, known[tag]) for tag in (_DT_RPATH, _DT_RUNPATH) if tag in known}
    return Needs(
        loader.partition(b"\0")[0],
        tuple(each for each in libraries if each),
        # ld.so(8): DT_RPATH counts only where there is no DT_RUNPATH.
        paths.get(_DT_RPATH, ()) if _DT_RUNPATH not in paths else (),
        paths.get(_DT_RUNPATH, ()),
    )


def _read_constants(read: _Read, max_size: int) -> bytes:
    found = _read_header(read)
    if found is None:
        return b""
    header, wide, order = found
    (start,) = struct.unpack_from(order + ("Q" if wide else "I"), header, 40 if wide else 32)
    size, count, names = struct.unpack_from(order + "HHH", header, 58 if wide else 46)
    layout = struct.Struct(order + ("IIQQQQ" if wide else "IIIIII"))
    if not layout.size <= size <= _MAX_SECTION_HEADER:
        return b""
    table = read(start, size * min(count, _MAX_SECTIONS))
    sections = [layout.unpack_from(table, at) for at in range(0, len(table) - layout.size + 1, size)]
    if names >= len(sections):
        return b""
    *_, at_names, names_size = sections[names]
    texts = read(at_names, min(names_size, _MAX_STRINGS))
    for name, _, _, _, offset, length in sections:
        if _string(texts, name) == _CONSTANTS:
            return read(offset, min(length, max_size))
    return b""


def _read_header(read: _Read) -> tuple[bytes, bool, str] | None:
    """Return the header, True for a 64-bit file, and the byte order as `struct` names it; None if it is not ELF."""
    header = read(0, 64)
    if len(header) < 52 or header[:4] != _MAGIC or header[4] not in (1, 2) or header[5] not in (1, 2):
        return None
    return header, header[4] == 2, "<" if header[5] == 1 else ">"


def _segments(read: _Read, header: bytes, wide: bool, order: str) -> Iterator[_Segment]:
    if wide:
        (start,) = struct.unpack_from(order + "Q", header, 32)
        size, count = struct.unpack_from(order + "HH", header, 54)
        layout, wanted = struct.Struct(order + "IIQQQQQQ"), (0, 2, 3, 5)
    else:
        (start,) = struct.unpack_from(order + "I", header, 28)
        size, count = struct.unpack_from(order + "HH", header, 42)
        layout, wanted = struct.Struct(order + "IIIIIIII"), (0, 1, 2, 4)
    if not layout.size <= size <= _MAX_PROGRAM_HEADER:
        return
    table = read(start, size * min(count, _MAX_PROGRAM_HEADERS))
    for at in range(0, len(table) - layout.size + 1, size):
        fields = layout.unpack_from(table, at)
        yield _Segment(*(fields[number] for number in wanted))


def _strings(read: _Read, segments: list[_Segment], address: int, size: int) -> bytes:
    for each in segments:
        if each.kind == _PT_LOAD and each.address <= address < each.address + each.size:
            return read(each.offset + address - each.address, min(size, _MAX_STRINGS))
    return b""


def _directories(strings: bytes, offset: int) -> tuple[bytes, ...]:
    return tuple(_string(strings, offset).split(b":", MAX_DIRECTORIES)[:MAX_DIRECTORIES])


def _string(strings: bytes, offset: int) -> bytes:
    end = strings.find(b"\0", offset, offset + _MAX_NAME)
    return strings[offset:end] if end >= 0 else b""
