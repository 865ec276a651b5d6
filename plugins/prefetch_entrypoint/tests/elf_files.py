"""The least of an ELF file that says what it needs, for any width and byte order.

Source: the System V ABI, "Object Files" and "Dynamic Section".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

__all__ = ["make_elf", "make_loader_cache"]

_BASE = 0x40_0000


def make_elf(
    libraries: Sequence[bytes] = (),
    *,
    loader: bytes = b"",
    rpath: bytes | None = None,
    runpath: bytes | None = None,
    wide: bool = True,
    order: str = "<",
    behind: bytes = b"",
    constants: bytes | None = None,
) -> bytes:
    """Return a file with one PT_LOAD, a PT_DYNAMIC, and a PT_INTERP where there is a loader; `behind` fills it up.

    With `constants` it has sections, too: a `.rodata`, and the one with the names.
    """
    strings = bytearray(b"\0")

    def text(value: bytes) -> int:
        at = len(strings)
        strings.extend(value + b"\0")
        return at

    tags = [(1, text(each)) for each in libraries]
    tags += [(tag, text(value)) for tag, value in ((15, rpath), (29, runpath)) if value is not None]
    header_size, segment_size, count = (64, 56, 3) if wide else (52, 32, 3)
    at_interp = header_size + count * segment_size
    interp = loader + b"\0" if loader else b""
    at_strings = at_interp + len(interp)
    at_dynamic = -(-(at_strings + len(strings)) // 8) * 8
    tags += [(5, _BASE + at_strings), (10, len(strings)), (0, 0), (1, 0)]
    dynamic = b"".join(struct.pack(order + ("qQ" if wide else "iI"), *each) for each in tags)
    size = at_dynamic + len(dynamic)

    def segment(kind: int, offset: int, length: int) -> bytes:
        address = _BASE + offset
        if wide:
            return struct.pack(order + "IIQQQQQQ", kind, 4, offset, address, address, length, length, 8)
        return struct.pack(order + "IIIIIIII", kind, offset, address, address, length, length, 4, 4)

    identity = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    at_sections = at_dynamic + len(dynamic) + len(behind)
    section_names = b"\0.shstrtab\0.rodata\0"

    def section(name: int, kind: int, offset: int, length: int) -> bytes:
        address = _BASE + offset
        return struct.pack(
            order + ("IIQQQQIIQQ" if wide else "IIIIIIIIII"), name, kind, 2, address, offset, length, 0, 0, 1, 0
        )

    sections = b""
    if constants is not None:
        at_names = at_sections + 3 * len(section(0, 0, 0, 0))
        sections = bytes(len(section(0, 0, 0, 0))) + section(1, 3, at_names, len(section_names))
        sections += section(11, 1, at_names + len(section_names), len(constants)) + section_names + constants
    start, section_size, section_count, names_at = (at_sections, 64 if wide else 40, 3, 1) if sections else (0,) * 4
    places = (3, 62, 1, 0, header_size, start, 0)
    sizes = (header_size, segment_size, count, section_size, section_count, names_at)
    header = identity + struct.pack(order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"), *places, *sizes)
    kinds = [(3 if loader else 0, at_interp, len(interp)), (1, 0, size), (2, at_dynamic, len(dynamic))]
    data = header + b"".join(segment(*each) for each in kinds) + interp + bytes(strings)
    return data.ljust(at_dynamic, b"\0") + dynamic + behind + sections


def make_loader_cache(libraries: Sequence[tuple[bytes, bytes]], *, old: bool = False) -> bytes:
    """Return an ld.so.cache of (name, path) pairs; with `old`, behind one in the format of glibc 2.1.

    Source: glibc, sysdeps/generic/dl-cache.h.
    """
    before = struct.pack("=11sxI", b"ld.so-1.7.0", 1) + struct.pack("=iII", 1, 0, 0) + bytes(4) if old else b""
    at = 48 + 24 * len(libraries)
    strings, entries = bytearray(), bytearray()
    for name, path in libraries:
        entries += struct.pack("=iIIIQ", 0x303, at + len(strings), at + len(strings) + len(name) + 1, 0, 0)
        strings += name + b"\0" + path + b"\0"
    head = struct.pack("=20sIIB3xI12x", b"glibc-ld.so.cache1.1", len(libraries), len(strings), 2, 0)
    return before + head + bytes(entries) + bytes(strings)
