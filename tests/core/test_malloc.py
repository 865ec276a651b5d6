"""How many arenas the C library's allocator makes, as it says itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import ctypes, sys, threading
from lazylayer.cli.malloc import use_few_arenas

use_few_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
barrier = threading.Barrier(20)

def allocate():
    barrier.wait()
    libc.malloc(100_000)
    barrier.wait()

threads = [threading.Thread(target=allocate) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.parametrize(("variable", "arenas"), [(None, 2), ("1", 1)])
def test_threads_share_few_arenas(tmp_path: Path, variable: str | None, arenas: int) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "MALLOC_ARENA_MAX"}
    if variable is not None:
        environment["MALLOC_ARENA_MAX"] = variable
    told = tmp_path / "told"
    subprocess.run([sys.executable, "-c", PROGRAM, told], check=True, env=environment)
    assert 1 <= told.read_text().count("<heap nr=") <= arenas
