"""zTOCs that SOCI made are read, and damaged ones are refused, in bounded memory."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import random
import struct
import tracemalloc
from pathlib import Path

import pytest

from lazylayer.api.byteranges import ByteRange
from lazylayer.errors import FormatError
from lazylayer_ztoc.contents import read_contents
from lazylayer_ztoc.decoding import decode_ztoc
from lazylayer_ztoc.flatbuffers import Flatbuffer
from lazylayer_ztoc.inflating import SpanInflater
from lazylayer_ztoc.model import WINDOW_SIZE, Ztoc

DATA = Path(__file__).parent / "data"
GZIP = ["level-1", "many-members"]


def read(name: str) -> bytes:
    """Return a file of a layer that SOCI's tool indexed, with spans of 16 KiB; tests/images/soci_image.py made both."""
    return lzma.decompress((DATA / f"soci-{name}.xz").read_bytes())


def decode(name: str) -> Ztoc:
    return decode_ztoc(read(f"{name}.ztoc"))


@pytest.mark.parametrize("name", GZIP)
def test_spans_of_soci_hold_the_plain_archive(name: str) -> None:
    ztoc, layer = decode(name), read(f"{name}.layer")
    plain = gzip.decompress(layer)
    assert (ztoc.compressed_size, ztoc.compression, ztoc.span_size) == (len(layer), "gzip", 16 * 1024)
    assert len(ztoc.checkpoints) > 3
    inflate = SpanInflater(ztoc)
    for number, digest in enumerate(ztoc.span_digests):
        start, end = ztoc.span_range(number)
        span, place = layer[start:end], ztoc.plain_range(number)
        assert f"sha256:{hashlib.sha256(span).hexdigest()}" == digest
        assert inflate(span, place.size, start) == plain[place.start : place.end]


def test_files_are_as_the_archive_has_them() -> None:
    files = {record.name: record for record in decode("level-1").files}
    binary = files[b"attributes"]
    assert dict(binary.pax)[b"SCHILY.xattr.user.binary"] == b"\0\xff\n=\0"
    assert b"not-utf-8-\xff\xfe" in files
    assert files[b"sizes/512"].mtime_ns == 1_600_000_000_123_456_700
    assert (files[b"large"].uid, files[b"large"].gid) == (70_000, 3_000_000_000)
    assert (files[b"dev/sda"].devmajor, files[b"dev/sda"].devminor) == (8, 1)
    assert files[b"elsewhere/b"].linkname == b"linked/a"


def test_spans_of_a_plain_tar() -> None:
    ztoc = decode("plain")
    assert ztoc.compression == "uncompressed"
    assert ztoc.span_range(1) == ztoc.plain_range(1) == ByteRange(16 * 1024, 32 * 1024)
    assert SpanInflater(ztoc)(b"abc", 2, 16 * 1024) == b"ab"
    with pytest.raises(FormatError):
        SpanInflater(ztoc)(b"abc", 4, 0)


def check(data: bytes) -> bool:
    """Return True for a zTOC that is accepted: then it fits together. Any error but FormatError fails the test."""
    try:
        ztoc = decode_ztoc(data)
        _, chunks = read_contents(ztoc)
    except FormatError as error:
        assert str(error)
        return False
    assert len(ztoc.checkpoints) == len(ztoc.span_digests)
    for member in range(chunks.members):
        start, end = chunks.member_range(member)
        assert 0 <= start < end <= ztoc.compressed_size
    return True


def places_that_matter(data: bytes) -> list[int]:
    """Return the places of a zTOC outside of windows, which are most of it, and any of which will do."""
    record = struct.calcsize("<qqB") + WINDOW_SIZE
    start = data.find(struct.pack("<Iq", 5, 16 * 1024))
    if start < 0:
        return list(range(len(data)))
    headers = [start + 12 + number * record + at for number in range(5) for at in range(record - WINDOW_SIZE)]
    return [*range(start + 12), *headers * 20, *range(start + 12 + 5 * record, len(data))]


@pytest.mark.parametrize("name", ["level-1", "plain"])
def test_damaged_ztocs_are_refused_or_fit_together(name: str) -> None:
    chance = random.Random(name)
    whole = read(f"{name}.ztoc")
    places = places_that_matter(whole)
    accepted = 0
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            place = chance.choice(places)
            if chance.random() < 0.5:
                data[place] ^= 1 << chance.randrange(8)
            else:
                data[place : place + 4] = chance.choice([b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", b"\1\0\0\0"])
        if chance.random() < 0.1:
            del data[chance.randrange(len(data)) :]
        accepted += check(bytes(data))
    assert 0 < accepted < 500


def test_memory_is_bounded() -> None:
    """A small zTOC whose list of files has the same file over and over, each with long strings, is refused."""
    whole = read("plain.ztoc")
    tracemalloc.start()
    try:
        for at in range(0, len(whole) - 4, 12):
            data = bytearray(whole)
            struct.pack_into("<I", data, at, 0x00FFFFFF)
            check(bytes(data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(whole) + 2_000_000


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff" * 4, bytes(100), b"\4\0\0\0" + bytes(4), b"\x7f" * 1000])
def test_what_is_no_ztoc_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="invalid zTOC"):
        decode_ztoc(data)


@pytest.mark.parametrize(
    "time", [b"2020-09-13T12:26:60Z", b"2020-09-13T24:26:40Z", b"2020-02-30T12:26:40Z", b"2020/09/13T12:26:40Z"]
)
def test_times_that_never_were_are_refused(time: bytes) -> None:
    data = read("plain.ztoc")
    right = b"2020-09-13T12:26:40Z"
    assert right in data
    with pytest.raises(FormatError, match=r"invalid (time|date)"):
        decode_ztoc(data.replace(right, time))


def test_time_of_another_zone() -> None:
    """SOCI's tool writes the zone of its machine."""
    whole = read("plain.ztoc")
    at = whole.index(b"2020-09-13T12:26:40.1234567Z")
    moved = whole[:at] + b"2020-09-13T12:26:40.12+02:00" + whole[at + 28 :]
    times = {record.mtime_ns for record in decode_ztoc(moved).files}
    assert times == {1_600_000_000_000_000_000, 1_600_000_000_123_456_700, 1_599_992_800_120_000_000}


def test_more_files_than_allowed_are_refused() -> None:
    with pytest.raises(FormatError, match="longer than 5"):
        decode_ztoc(read("plain.ztoc"), max_files=5)


def buffer_of(vtable: list[int], table: bytes) -> bytes:
    """Return a buffer whose root table has this vtable."""
    head = struct.pack(f"<{len(vtable)}H", *vtable)
    head += bytes(-len(head) % 4)
    return struct.pack("<I", 4 + len(head)) + head + struct.pack("<i", len(head)) + table


def test_fields_are_read_and_left_out_ones_are_zero() -> None:
    table = Flatbuffer(buffer_of([10, 12, 4, 0, 8], struct.pack("<iI", -5, 7))).root("iIIq")
    assert table.values == (-5, 0, 7, 0)
    assert table.offsets == (4, 0, 8, 0)


@pytest.mark.parametrize(
    ("vtable", "says"),
    [
        ([8, 12, 4, 6], "cannot lie at 6"),
        ([8, 12, 4, 10], "cannot lie at 10"),
        ([8, 12, 2, 4], "cannot lie at 2"),
        ([8, 100, 4, 8], "past the end"),
        ([7, 12, 4, 8], "cut short"),
        ([2, 12, 4, 8], "cut short"),
        ([60_000, 12, 4, 8], "cut short"),
    ],
)
def test_tables_that_do_not_fit_are_refused(vtable: list[int], says: str) -> None:
    with pytest.raises(FormatError, match=says):
        Flatbuffer(buffer_of(vtable, bytes(8))).root("II")


def test_sharing_is_limited() -> None:
    text = b"x" * 1000
    buffer = Flatbuffer(struct.pack("<I", len(text)) + text, share=0)
    with pytest.raises(FormatError, match="shared so often"):
        for _ in range(1100):
            buffer.string(-4, 4, 1000)
