"""Archives of strangers: every parser gets on or refuses, and holds no more than a bounded number of bytes."""

from __future__ import annotations

import io
import random
import subprocess
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path

import pytest

from lazylayer.errors import FormatError, LazylayerError
from lazylayer_tarlayers.reordering import Reordered
from lazylayer_tarlayers.tarreader import TarReader

pytestmark = pytest.mark.timeout(60)

MIB = 1 << 20


def header(name: bytes, kind: bytes, size: int, sparse: bytes = b"") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = block[108:116] = block[116:124] = b"0000644\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % 0
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[386 : 386 + len(sparse)] = sparse
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(data: bytes, kind: bytes = b"x") -> bytes:
    return header(b"PaxHeaders/x", kind, len(data)) + data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    size = len(key) + len(value) + 3
    length = size + len(str(size))
    length += len(str(size + len(str(size)))) - len(str(size))
    return b"%d %s=%s\n" % (length, key, value)


class Endless:
    """A source that is made while it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self.given = 0

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = next(self._pieces, b"")
            if not piece:
                break
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        self.given += len(data)
        return data


def read_all(source: Endless | io.BytesIO) -> list[bytes]:
    reader = TarReader(source)
    return [member.name for member in reader]


def peak_of(source: Endless) -> int:
    """The most memory that refusing an archive takes, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            read_all(source)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- progress --------------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [1, 20, 400, 2000])
def test_pax_records_may_be_followed_by_zeros_as_for_gnu_tar(tmp_path: Path, zeros: int) -> None:
    data = pax(record(b"path", b"renamed") + bytes(zeros)) + header(b"f", b"0", 0) + bytes(1024)
    (tmp_path / "odd.tar").write_bytes(data)
    listed = subprocess.run(["tar", "-tf", tmp_path / "odd.tar"], capture_output=True, check=True).stdout
    assert read_all(io.BytesIO(data)) == listed.split() == [b"renamed"]


@pytest.mark.parametrize(
    "records",
    [
        record(b"path", b"a") + b"\0" + record(b"path", b"b"),
        record(b"path", b"a") + b"x",
        b"0 a=b\n",
        b"6 a=\n",
        b"3 =\n",
        b"999 a=b\n",
        b" 6 a=b\n",
        record(b"path", b"a") + b"00 \n",
        record(b"path", b"a") + b"0 ",
        record(b"path", b"a") + b"1 \n",
        record(b"path", b"a") + b"2 \n",
    ],
)
def test_records_that_cannot_be_read_are_refused(records: bytes) -> None:
    with pytest.raises(FormatError, match="extended tar header"):
        read_all(io.BytesIO(pax(records) + header(b"f", b"0", 0) + bytes(1024)))


@pytest.mark.parametrize("seed", range(300))
def test_damaged_records_never_hang(seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(record(b"path", b"a" * 30) + record(b"mtime", b"1.5") + record(b"SCHILY.xattr.a", b"b\0c"))
    for _ in range(chance.randrange(1, 6)):
        data[chance.randrange(len(data))] = chance.choice(b"\0 0123456789=\nx")
    source = pax(bytes(data), chance.choice((b"x", b"g"))) + header(b"f", b"0", 0) + bytes(1024)
    with suppress(LazylayerError):
        read_all(io.BytesIO(source))


# --- memory ----------------------------------------------------------------------------------------


def test_extended_headers_of_one_member_are_bounded_together() -> None:
    one = pax(record(b"comment", b"x" * MIB))
    source = Endless(chain(repeat(one, 200), [header(b"f", b"0", 0), bytes(1024)]))
    assert peak_of(source) < 40 * MIB
    assert source.given < 10 * MIB


def test_global_headers_are_bounded_together() -> None:
    def archive() -> Iterator[bytes]:
        for number in range(200):
            yield pax(record(b"KEY%d" % number, b"x" * MIB), b"g")
            yield header(b"f", b"0", 0)
        yield bytes(1024)

    assert peak_of(Endless(archive())) < 40 * MIB


def test_blocks_of_an_old_sparse_map_are_bounded_though_they_are_empty() -> None:
    first = bytearray(512)
    first[482 - 386] = 1
    head = header(b"f", b"S", 0, bytes(first[:109]))
    more = bytes(504) + b"\1" + bytes(7)
    source = Endless(chain([head], repeat(more, 400 * 2048)))
    assert peak_of(source) < 80 * MIB


@pytest.mark.parametrize("kind", [b"L", b"K"])
def test_names_longer_than_any_path_are_refused(kind: bytes) -> None:
    name = b"a/" * MIB
    data = header(b"././@LongLink", kind, len(name)) + name + header(b"f", b"2", 0) + bytes(1024)
    with pytest.raises(FormatError, match="16384"):
        read_all(io.BytesIO(data))


def test_deep_paths_cost_no_more_than_they_are_long() -> None:
    """Each of them implies thousands of directories, and is a few bytes when it is compressed."""

    def archive() -> Iterator[bytes]:
        for number in range(600):
            yield pax(record(b"path", b"%d/" % number + b"a/" * 8000 + b"f")) + header(b"f", b"0", 0)
        yield bytes(1024)

    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="directories"), Reordered(io.BytesIO(b"".join(archive())), [b"x"]):
            pass
        assert tracemalloc.get_traced_memory()[1] < 200 * MIB
    finally:
        tracemalloc.stop()
