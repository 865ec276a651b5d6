"""Measure how fast chunks are inflated: lazylayer's choice, zlib, and libdeflate where usable.

`exact` members hold a chunk and nothing else; `tail` members end with tar headers, as most members of
a layer do. libdeflate (the package `deflate`, measured when installed) cannot inflate those without
knowing their full size.
"""

from __future__ import annotations

import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from lazylayer_tarlayers.inflate import INFLATER, inflate_gzip_member
from suite.bench import Bench, Workload

__all__ = ["WORKLOADS"]

_BUDGET = 16 * 1024 * 1024
_SIZES = (512, 4096, 65536, 1 << 20, 4 << 20)
_ZLIB = "zlib"

_Inflate = Callable[[bytes, int], bytes]


def _measure(bench: Bench) -> None:
    inflaters = dict(_inflaters(bench))
    sizes = _SIZES[:3] if bench.options.quick else _SIZES
    library = Path(zipfile.__file__).parent
    contents = {
        what: b"".join(each.read_bytes() for each in sorted(library.glob(pattern)))
        for what, pattern in {"source": "*.py", "bytecode": "**/*.pyc"}.items()
    }
    for number in bench.runs():
        for what, content in contents.items():
            for size in (each for each in sizes if each <= len(content)):
                chunk = content[:size]
                for kind, data in {"exact": _member(chunk), "tail": _member(chunk + bytes(1536))}.items():
                    for name in bench.alternate(list(inflaters), number):
                        if _can(inflaters[name], data, chunk):
                            seconds = _seconds(inflaters[name], data, size)
                            bench.record(f"{what}, {kind}", name, seconds, "s", at=size, at_unit="bytes")


def _inflaters(bench: Bench) -> Iterator[tuple[str, _Inflate]]:
    yield f"lazylayer ({INFLATER})", inflate_gzip_member
    yield _ZLIB, lambda data, size: zlib.decompressobj(31).decompress(data, size)
    try:
        import deflate
    except ImportError:
        bench.skip("libdeflate", "not installed: the Python package deflate")
        return
    yield "libdeflate", lambda data, size: bytes(deflate.gzip_decompress(data, size))


def _member(data: bytes) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
    return compressor.compress(data) + compressor.flush()


def _can(inflate: _Inflate, data: bytes, chunk: bytes) -> bool:
    try:
        return inflate(data, len(chunk)) == chunk
    except Exception:  # noqa: BLE001 - each library raises its own errors
        return False


def _seconds(inflate: _Inflate, data: bytes, size: int) -> float:
    rounds = max(1, min(5000, _BUDGET // size))
    start = time.perf_counter()
    for _ in range(rounds):
        inflate(data, size)
    return (time.perf_counter() - start) / rounds


WORKLOADS = (
    Workload(
        name="inflate",
        summary="inflating one chunk, by what lazylayer uses and by others",
        measure=_measure,
        references=(_ZLIB,),
    ),
)
