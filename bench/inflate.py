"""Inflate speed, side by side: isal, zlib, and libdeflate where it could be used at all.

    python bench/inflate.py [FILE…]

Each line is one chunk size and one kind of member. `exact` members hold a chunk and nothing else;
`tail` members end with tar headers, as most members of a layer do. libdeflate (the package
`deflate`, measured when installed) cannot inflate those without knowing their full size.
"""

from __future__ import annotations

import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from lazylayer.inflate import INFLATER, inflate_gzip_member

_REPEATS = 3
_BUDGET = 16 * 1024 * 1024


def _with_zlib(data: bytes, size: int) -> bytes:
    return zlib.decompressobj(31).decompress(data, size)


def _inflaters() -> dict[str, Callable[[bytes, int], bytes]]:
    found: dict[str, Callable[[bytes, int], bytes]] = {
        f"lazylayer ({INFLATER})": inflate_gzip_member,
        "zlib": _with_zlib,
    }
    try:
        import deflate  # type: ignore[import-not-found]

        found["libdeflate"] = lambda data, size: bytes(deflate.gzip_decompress(data, size))
    except ImportError:
        pass
    return found


def _member(data: bytes) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
    return compressor.compress(data) + compressor.flush()


def _seconds(inflate: Callable[[bytes, int], bytes], data: bytes, size: int) -> float:
    rounds = max(1, min(5000, _BUDGET // size))
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        for _ in range(rounds):
            inflate(data, size)
        best = min(best, (time.perf_counter() - start) / rounds)
    return best


def _measure(name: str, content: bytes) -> None:
    for size in (512, 4096, 65536, 1 << 20, 4 << 20):
        chunk = content[:size]
        if len(chunk) < size:
            break
        kinds = {"exact": _member(chunk), "tail": _member(chunk + bytes(1536))}
        for kind, data in kinds.items():
            cells = []
            for inflater, inflate in _inflaters().items():
                try:
                    works = inflate(data, size) == chunk
                except Exception:  # noqa: BLE001 - a library that cannot do it says so in its own way
                    works = False
                rate = f"{size / _seconds(inflate, data, size) / 1e6:7.0f} MB/s" if works else "    cannot "
                cells.append(f"{inflater} {rate}")
            print(f"{name:24.24} {size:8} {kind:6} " + "   ".join(cells))


def main() -> None:
    """Measures the files named, or the modules of Python's own library, as source and as bytecode."""
    contents = {Path(each).name: Path(each).read_bytes() for each in sys.argv[1:]}
    if not contents:
        library = Path(zipfile.__file__).parent
        for pattern in ("*.py", "**/*.pyc"):
            contents[pattern] = b"".join(each.read_bytes() for each in sorted(library.glob(pattern)))
    for name, content in contents.items():
        _measure(name, content)


if __name__ == "__main__":
    main()
