"""What ELF files say that they need: those of this system, some made by hand, and ones that lie."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazylayer_prefetch_entrypoint.budget import Budget
from lazylayer_prefetch_entrypoint.elf import Needs, read_constants, read_needs

from .elf_files import make_elf

MOST_READ = 32 * 1024 * 1024
SYSTEM = [path for path in ("/bin/ls", "/usr/bin/python3", "/usr/bin/skopeo", "/sbin/ldconfig") if Path(path).exists()]


class Read:
    """Reads of a file's bytes, as of a layer's file, counted."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked = 0

    def __call__(self, offset: int, size: int) -> bytes:
        assert size >= 0
        assert offset >= 0
        self.asked += size
        return self.data[offset : offset + size]


def needs_of(data: bytes) -> Needs | None:
    read = Read(data)
    needs = read_needs(read, Budget())
    assert read.asked <= MOST_READ
    constants_of(data)
    return needs


def constants_of(data: bytes) -> bytes:
    read = Read(data)
    constants = read_constants(read, 1000, Budget())
    assert read.asked <= MOST_READ
    assert len(constants) <= 1000
    return constants


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("wide", [True, False])
def test_any_width_and_byte_order(wide: bool, order: str) -> None:
    data = make_elf(
        [b"libz.so.1", b"libc.so.6"], loader=b"/lib/ld.so.1", rpath=b"$ORIGIN/../lib:/opt/lib", wide=wide, order=order
    )
    expected = Needs(b"/lib/ld.so.1", (b"libz.so.1", b"libc.so.6"), (b"$ORIGIN/../lib", b"/opt/lib"), ())
    assert needs_of(data) == expected


def test_what_is_made_here_is_what_readelf_reads(tmp_path: Path) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    for wide, order in ((True, "<"), (False, "<"), (True, ">"), (False, ">")):
        path = tmp_path / "made"
        libraries = [b"liba.so", b"libb.so"]
        made = make_elf(libraries, loader=b"/ld", runpath=b"/x", wide=wide, order=order, constants=b"a text\0")
        path.write_bytes(made)
        said = subprocess.run(
            ["readelf", "-W", "-d", "-l", "-p.rodata", path], check=True, capture_output=True, text=True
        ).stdout
        for words in ("Shared library: [liba.so]", "[libb.so]", "program interpreter: /ld]", "runpath: [/x]", "a text"):
            assert words in said
        assert constants_of(made) == b"a text\0"


def test_a_runpath_makes_an_rpath_void() -> None:
    needs = needs_of(make_elf([b"liba.so"], rpath=b"/one", runpath=b"/two:$ORIGIN"))
    assert needs == Needs(b"", (b"liba.so",), (), (b"/two", b"$ORIGIN"))


def test_a_program_that_is_linked_with_nothing() -> None:
    assert needs_of(make_elf()) == Needs()


def test_what_stands_behind_the_end_of_the_dynamic_section_does_not_count() -> None:
    """Linkers leave room there, and tools write into it; ours has a DT_NEEDED behind its DT_NULL."""
    assert needs_of(make_elf([b"liba.so"])) == Needs(b"", (b"liba.so",))


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF" + bytes(60), bytes(100)])
def test_what_is_no_elf_file(data: bytes) -> None:
    assert needs_of(data) is None


def damaged(data: bytes, seed: int) -> bytes:
    """Some bytes of the parts that are read made into others, or the end cut off."""
    chance = random.Random(seed)
    changed = bytearray(data)
    for _ in range(chance.randint(0, 12)):
        at = chance.choice([chance.randrange(64), chance.randrange(min(len(data), 1024)), chance.randrange(len(data))])
        width = chance.choice([1, 2, 4, 8])
        value = chance.choice([0, 1, (1 << 8 * width) - 1, 1 << (8 * width - 1), chance.getrandbits(8 * width)])
        changed[at : at + width] = value.to_bytes(width, chance.choice(["little", "big"]))
    return bytes(changed[: chance.choice([len(data), chance.randrange(len(data)), chance.randrange(200)])])


@pytest.fixture(scope="module")
def programs() -> list[bytes]:
    return [Path(path).read_bytes() for path in SYSTEM]


@given(seed=st.integers(0, 2**32), which=st.integers(0, 100))
@settings(max_examples=400, deadline=None)
def test_damaged_files_of_the_system_are_never_an_exception(programs: list[bytes], seed: int, which: int) -> None:
    needs_of(damaged(programs[which % len(programs)], seed))


@given(
    seed=st.integers(0, 2**32),
    libraries=st.lists(st.binary(max_size=20).filter(lambda each: b"\0" not in each), max_size=5),
    wide=st.booleans(),
    order=st.sampled_from(["<", ">"]),
)
@settings(max_examples=400, deadline=None)
def test_damaged_files_made_by_hand_are_never_an_exception(
    seed: int, libraries: list[bytes], wide: bool, order: str
) -> None:
    constants = b"\0".join(libraries)
    data = make_elf(libraries, loader=b"/ld", runpath=b"$ORIGIN", wide=wide, order=order, constants=constants)
    assert constants_of(data) == constants
    needs = needs_of(data)
    assert needs is not None
    assert needs.libraries == tuple(each for each in libraries if each)
    needs_of(damaged(data, seed))


@given(head=st.binary(max_size=64), rest=st.binary(max_size=300))
@settings(deadline=None)
def test_garbage_behind_the_magic_is_never_an_exception(head: bytes, rest: bytes) -> None:
    needs_of(b"\x7fELF" + head + rest)


def test_a_file_whose_every_size_is_the_largest_is_read_within_bounds() -> None:
    for wide, at in ((True, 64), (False, 52)):
        data = bytearray(make_elf([b"liba.so"], loader=b"/ld", wide=wide))
        data[at - 10 : at - 8] = b"\xff\xff"  # as many program headers as there can be
        size = 56 if wide else 32
        for number in range(3):
            field = at + number * size + (32 if wide else 16)
            data[field : field + (8 if wide else 4)] = b"\xff" * (8 if wide else 4)
        needs_of(bytes(data) + bytes(100_000))


def test_no_more_constants_are_read_than_asked_for() -> None:
    assert constants_of(make_elf(constants=b"x" * 5000)) == b"x" * 1000
    assert constants_of(make_elf()) == constants_of(b"") == b""
