"""Finding libraries, beside the tools of the system that do the same."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from lazylayer_prefetch_entrypoint.elf import read_needs
from lazylayer_prefetch_entrypoint.linking import LOADER_CACHE, read_loader_cache

PROGRAMS = ["/usr/bin/python3", "/bin/ls", "/usr/bin/skopeo"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_needs_are_what_readelf_says(program: str) -> None:
    data = Path(program).read_bytes()
    needs = read_needs(lambda offset, size: data[offset : offset + size])
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
    assert read_loader_cache(cache.read_bytes()) == expected
