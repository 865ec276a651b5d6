"""Finding libraries, beside the tools of the system that do the same."""

from __future__ import annotations

import os
import random
import re
import struct
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazylayer_prefetch_entrypoint.budget import Budget, MeteredFiles, OverBudgetError
from lazylayer_prefetch_entrypoint.elf import read_needs
from lazylayer_prefetch_entrypoint.linking import LOADER_CACHE, Linker, read_loader_cache, with_origin
from lazylayer_testing.synthetic import SyntheticLayer, memory_image

from .elf_files import make_loader_cache

PROGRAMS = ["/usr/bin/python3", "/bin/ls", "/usr/bin/skopeo"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_needs_are_what_readelf_says(program: str) -> None:
    data = Path(program).read_bytes()
    needs = read_needs(lambda offset, size: data[offset : offset + size], Budget())
    said = subprocess.run(["readelf", "-W", "-d", "-l", program], check=True, capture_output=True, text=True).stdout
    assert needs is not None
    assert [os.fsdecode(each) for each in needs.libraries] == re.findall(r"\(NEEDED\)\s+Shared library: \[(.*)\]", said)
    assert [os.fsdecode(needs.loader)] == re.findall(r"program interpreter: (.*)\]", said)


def test_the_loaders_cache_is_what_ldconfig_says() -> None:
    cache = Path(os.fsdecode(LOADER_CACHE))
    if not cache.exists():
        pytest.skip("there is no loader cache here")
    said = subprocess.run(["/sbin/ldconfig", "-p"], check=True, capture_output=True).stdout
    expected: dict[bytes, bytes] = {}
    for name, path in re.findall(rb"^\t(\S+) \(.*\) => (\S+)$", said, re.MULTILINE):
        expected.setdefault(name, path)
    assert read_loader_cache(cache.read_bytes(), Budget()) == expected


def found_by(
    files: dict[bytes, bytes],
    library: bytes,
    rpath: tuple[bytes, ...] = (),
    runpath: tuple[bytes, ...] = (),
    library_path: bytes = b"",
    links: dict[bytes, bytes] | None = None,
) -> bytes | None:
    """The path at which a loader in an image of these files finds a library."""
    layer = SyntheticLayer({name: data or b"x" for name, data in files.items()}, links=links)
    with memory_image(layer) as made:
        found = Linker(made.image, library_path, Budget()).find(library, rpath, runpath)
        return found[0] if found is not None else None


EVERYWHERE = [b"r", b"e", b"u", b"c", b"lib", b"usr/lib", b"lib64", b"usr/lib64", b"usr/local/lib"]


@pytest.mark.parametrize("gone", range(len(EVERYWHERE) + 1))
def test_places_are_looked_at_in_the_order_of_ld_so(gone: int) -> None:
    """DT_RPATH, LD_LIBRARY_PATH, DT_RUNPATH, the cache, the system's directories: the first that is there."""
    files = {directory + b"/liba.so": b"" for directory in EVERYWHERE[gone:]}
    files[b"etc/ld.so.cache"] = make_loader_cache([(b"liba.so", b"/c/liba.so")])
    found = found_by(files, b"liba.so", (b"/r",), (b"/u",), b"/e:")
    assert found == (b"/" + EVERYWHERE[gone] + b"/liba.so" if gone < len(EVERYWHERE) else None)


def test_an_image_without_a_cache_has_its_directories() -> None:
    """As musl has them."""
    assert found_by({b"lib/libc.musl.so.1": b""}, b"libc.musl.so.1") == b"/lib/libc.musl.so.1"
    assert found_by({b"usr/lib/liba.so": b""}, b"liba.so", links={b"lib": b"usr/lib"}) == b"/lib/liba.so"


def test_a_name_with_a_slash_is_a_path() -> None:
    assert found_by({b"opt/liba.so": b"", b"lib/liba.so": b""}, b"/opt/liba.so") == b"/opt/liba.so"
    assert found_by({b"lib/opt/liba.so": b""}, b"/opt/liba.so") is None


def test_a_directory_or_a_broken_link_is_no_library() -> None:
    links = {b"r/liba.so": b"/nowhere", b"u/liba.so": b"/lib"}
    assert found_by({b"lib/liba.so": b""}, b"liba.so", (b"/r",), (b"/u",), links=links) == b"/lib/liba.so"


def test_the_origin_is_where_the_file_is() -> None:
    assert with_origin([b"$ORIGIN/../lib", b"${ORIGIN}", b"", b"/x"], b"/opt/bin") == (
        b"/opt/bin/../lib",
        b"/opt/bin",
        b"/x",
    )


@pytest.mark.parametrize("old", [False, True])
def test_caches_of_both_kinds(old: bool) -> None:
    libraries = [(b"liba.so", b"/x/liba.so"), (b"libb.so", b"/y/libb.so"), (b"liba.so", b"/z/liba.so")]
    assert read_loader_cache(make_loader_cache(libraries, old=old), Budget()) == {
        b"liba.so": b"/x/liba.so",
        b"libb.so": b"/y/libb.so",
    }
    assert read_loader_cache(make_loader_cache([], old=old), Budget()) == {}


@given(seed=st.integers(0, 2**32), old=st.booleans())
@settings(max_examples=400, deadline=None)
def test_damaged_caches_are_never_an_exception(seed: int, old: bool) -> None:
    chance = random.Random(seed)
    data = bytearray(make_loader_cache([(b"lib%d.so" % n, b"/usr/lib/lib%d.so.1" % n) for n in range(9)], old=old))
    for _ in range(chance.randint(0, 8)):
        at = chance.choice([chance.randrange(len(data)), chance.randrange(80)])
        data[at : at + 4] = chance.choice([b"\xff" * 4, bytes(4), chance.randbytes(4)])
    read_loader_cache(bytes(data[: chance.choice([len(data), chance.randrange(len(data))])]), Budget())


def test_a_cache_whose_strings_overlap_takes_no_more_memory_than_one_that_is_honest() -> None:
    count, text = 100_000, 4000
    strings = (b"a" * text + b"\0") * 20
    at = 48 + 24 * count
    entries = [struct.pack("=iIIIQ", 1, at + n % len(strings), at + n % text, 0, 0) for n in range(count)]
    head = struct.pack("=20sIIB3xI12x", b"glibc-ld.so.cache1.1", count, len(strings), 2, 0)
    data = head + b"".join(entries) + strings
    tracemalloc.start()
    assert read_loader_cache(data, Budget()) == {}
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10 * len(data)


def test_an_image_gets_no_more_than_its_share_of_work() -> None:
    with memory_image(SyntheticLayer({b"lib/liba.so": b"x"})) as made:
        budget = Budget(work=1_000_000)
        linker = Linker(MeteredFiles(made.image, budget), b"", budget)
        assert linker.find(b"liba.so", (), ()) is not None
        with pytest.raises(OverBudgetError):
            linker.find(b"none.so", [b"/%d" % n for n in range(200_000)], ())


def test_paths_longer_than_the_kernel_takes_are_not_looked_up() -> None:
    assert with_origin([b"$ORIGIN/" * 500, b"/x"], b"/" + b"o" * 1000) == (b"/x",)
    assert found_by({b"lib/liba.so": b""}, b"liba.so", (b"/." * 5000 + b"/lib",)) == b"/lib/liba.so"
