from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer.api.chunks import ChunkTable
from lazylayer.api.tree import Entry, Tree
from lazylayer.errors import FormatError, LayerError, VerificationError
from lazylayer_tarlayers.modtimes import format_modtime, parse_modtime
from lazylayer_tarlayers.toc import MAX_TOC_SIZE, TocEntry, encode_toc
from lazylayer_tarlayers.tocdecoding import decode_entries
from lazylayer_tarlayers.tocreading import read_toc

DIGEST = "sha256:" + "ab" * 32
BLOB_SIZE = 1_000_000


def read(*entries: dict[str, Any], verify: bool = True, version: int = 1) -> tuple[Tree, ChunkTable]:
    data = json.dumps({"version": version, "entries": entries}, indent="\t").encode()
    return read_toc(data, blob_size=BLOB_SIZE, data_end=BLOB_SIZE - 1000, verify=verify)


def decode(data: bytes) -> list[TocEntry]:
    return [entry for entries in decode_entries(data) for entry in entries]


def file(name: str = "f", size: Any = 10, **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "reg", "size": size, "offset": 100, "chunkDigest": DIGEST, **fields}


def chunk(at: int, size: int = 0, **fields: Any) -> dict[str, Any]:
    return {"name": "f", "type": "chunk", "offset": 200, "chunkOffset": at, "chunkSize": size,
            "chunkDigest": DIGEST, **fields}  # fmt: skip


def entry_of(tree: Tree, path: bytes) -> Entry:
    entry = tree.lookup(path)
    assert entry is not None
    return entry


# --- what is read --------------------------------------------------------------------------------


def test_every_type_of_entry_is_read() -> None:
    owner: dict[str, Any] = {"uid": 4_000_000_000, "gid": 7, "mode": 0o104755, "modtime": "2020-09-13T12:26:40Z"}
    tree, _ = read(
        {"name": "./", "type": "dir", **owner},
        {"name": "d/", "type": "dir", **owner},
        file("d/file", **owner, xattrs={"user.a": "AAE=", "user.empty": ""}),
        {"name": "/s", "type": "symlink", "linkName": "/d/../file", **owner},
        {"name": "h", "type": "hardlink", "linkName": "./d/file"},
        {"name": "c", "type": "char", "devMajor": 1, "devMinor": 259, **owner},
        {"name": "b", "type": "block", "devMajor": 8, **owner},
        {"name": "p", "type": "fifo", **owner},
        {"name": "empty", "type": "reg", "digest": DIGEST, **owner},
    )
    kinds = {path: stat.S_IFMT(entry.mode) for path, entry in tree.walk()}
    assert kinds == {
        b"": stat.S_IFDIR,
        b"d": stat.S_IFDIR,
        b"d/file": stat.S_IFREG,
        b"s": stat.S_IFLNK,
        b"h": stat.S_IFREG,
        b"c": stat.S_IFCHR,
        b"b": stat.S_IFBLK,
        b"p": stat.S_IFIFO,
        b"empty": stat.S_IFREG,
    }
    for _, entry in tree.walk():
        assert (entry.uid, entry.gid) == (4_000_000_000, 7)
        assert stat.S_IMODE(entry.mode) == 0o4755
        assert entry.mtime == 1_600_000_000 * 10**9
    shared = entry_of(tree, b"h")
    assert shared is tree.lookup(b"d/file")
    assert (shared.nlink, shared.size, shared.xattrs) == (2, 10, {b"user.a": b"\0\1", b"user.empty": b""})
    assert entry_of(tree, b"s").target == b"/d/../file"
    assert entry_of(tree, b"c").rdev == os.makedev(1, 259)


def test_chunks_become_the_table() -> None:
    _, table = read(file(size=25, chunkSize=10, innerOffset=5), chunk(10, 10), chunk(20, offset=200, innerOffset=10))
    assert [tuple(table[number])[:4] for number in range(len(table))] == [
        (100, 5, 0, 10),
        (200, 0, 10, 10),
        (200, 10, 20, 5),
    ]
    assert table.digest(0) == bytes.fromhex(DIGEST[7:])


def test_digest_of_the_file_serves_a_single_chunk_only() -> None:
    _, table = read(file(chunkDigest="", digest=DIGEST))
    assert table.digest(0) == bytes.fromhex(DIGEST[7:])
    with pytest.raises(VerificationError, match="digest"):
        read(file(size=20, chunkSize=10, chunkDigest="", digest=DIGEST), chunk(10))


def test_file_without_a_digest_needs_trust() -> None:
    with pytest.raises(VerificationError, match="'f'"):
        read(file(chunkDigest=""))
    _, table = read(file(chunkDigest=""), verify=False)
    assert table.digest(0) == b""


def test_later_entry_of_a_name_wins() -> None:
    tree, table = read(file(size=10), file(size=20), file("./f", size=7, offset=500))
    entry = entry_of(tree, b"f")
    assert (entry.size, table[entry.first_chunk].offset) == (7, 500)


def test_name_that_is_not_utf8_is_exact() -> None:
    tree, _ = read(
        {**file("caf�"), "nameBytes": "Y2Fm6Q=="},
        {"name": "s", "type": "symlink", "linkName": "�", "linkNameBytes": "6Q=="},
        {"name": "h", "type": "hardlink", "linkName": "caf�", "linkNameBytes": "Y2Fm6Q=="},
    )
    assert entry_of(tree, b"caf\xe9") is tree.lookup(b"h")
    assert entry_of(tree, b"s").target == b"\xe9"


def test_unknown_fields_and_nulls_are_passed_over() -> None:
    tree, _ = read(file(xattrs=None, NumLink=3, future={"x": [1]}))
    assert entry_of(tree, b"f").size == 10


# --- what is refused -----------------------------------------------------------------------------

HUGE = 1 << 62

LIES: dict[str, list[dict[str, Any]]] = {
    "negative size": [file(size=-1)],
    "size that no file has": [file(size=1 << 63)],
    "size larger than its chunks": [file(size=30, chunkSize=10), chunk(10, 10)],
    "size smaller than its chunks": [file(size=15, chunkSize=10), chunk(10, 10)],
    "size larger than a chunk may be": [file(size=HUGE)],
    "chunk of a huge size": [file(size=HUGE, chunkSize=HUGE)],
    "chunk of a negative size": [file(chunkSize=-10)],
    "chunk with a gap before it": [file(size=30, chunkSize=10), chunk(15, 15)],
    "chunk that overlaps": [file(size=30, chunkSize=10), chunk(5, 25)],
    "chunk twice": [file(size=20, chunkSize=10), chunk(10), chunk(10)],
    "chunk without a file": [chunk(0, 10)],
    "chunk behind a directory": [{"name": "d", "type": "dir"}, chunk(0, 10)],
    "chunk behind a file without data": [file(size=0), chunk(0, 10)],
    "file that begins in the middle": [file(size=20, chunkOffset=10)],
    "negative chunk offset": [file(chunkOffset=-5)],
    "offset outside of the blob": [file(offset=BLOB_SIZE)],
    "offset in the table of contents": [file(offset=BLOB_SIZE - 500)],
    "negative offset": [file(offset=-1)],
    "negative inner offset": [file(innerOffset=-1)],
    "huge inner offset": [file(innerOffset=HUGE)],
    "digest of another kind": [file(chunkDigest="md5:" + "ab" * 16)],
    "digest that is none": [file(chunkDigest="sha256:" + "xy" * 32)],
    "digest that is too short": [file(chunkDigest="sha256:abab")],
    "digest of zeros": [file(chunkDigest="sha256:" + "00" * 32)],
    "hard link to itself": [{"name": "a", "type": "hardlink", "linkName": "a"}],
    "hard link loop": [
        {"name": "a", "type": "hardlink", "linkName": "b"},
        {"name": "b", "type": "hardlink", "linkName": "a"},
    ],
    "hard link to nothing": [{"name": "a", "type": "hardlink", "linkName": "../b"}],
    "hard link to a directory": [
        {"name": "d", "type": "dir"},
        {"name": "a", "type": "hardlink", "linkName": "d"},
    ],
    "root that is a file": [file("../..")],
    "file below a file": [file("a"), file("a/b")],
    "file below a symlink": [{"name": "a", "type": "symlink", "linkName": "/etc"}, file("a/passwd")],
    "name that is too long": [file("x" * 256)],
    "name with a NUL": [file("a\0b")],
    "path that is too long": [file("/".join(["d"] * 20_000))],
    "unknown type": [{"name": "a", "type": "door"}],
    "no type": [{"name": "a"}],
    "negative owner": [file(uid=-1)],
    "huge owner": [file(gid=1 << 32)],
    "device that cannot be": [{"name": "c", "type": "char", "devMajor": 1 << 40}],
    "negative device": [{"name": "c", "type": "block", "devMinor": -1}],
    "symlink that is too long": [{"name": "s", "type": "symlink", "linkName": "x" * 5000}],
    "symlink with a NUL": [{"name": "s", "type": "symlink", "linkName": "a\0b"}],
    "attribute without a name": [file(xattrs={"": "AA=="})],
    "attribute of a long name": [file(xattrs={"user." + "x" * 255: "AA=="})],
    "attribute that is not base64": [file(xattrs={"user.a": "??"})],
    "size that is text": [file(size="10")],
    "entry that is a number": [3],  # type: ignore[list-item]
}


@pytest.mark.parametrize("entries", LIES.values(), ids=LIES.keys())
def test_lie_is_refused(entries: list[dict[str, Any]]) -> None:
    with pytest.raises(FormatError) as caught:
        read(*entries)
    assert str(caught.value)


def test_message_names_the_entry() -> None:
    with pytest.raises(FormatError, match=r"'d/f'.*20"):
        read(file("d/f", size=20, chunkSize=10))


def test_names_lead_nowhere_outside() -> None:
    tree, _ = read(file("../../../etc/passwd"), file("a/../../b"), file("/c/./d//e"))
    assert {path for path, entry in tree.walk() if entry.is_file} == {b"etc/passwd", b"b", b"c/d/e"}


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b'{"version": 1}', b'{"entries": []}', b'{"version": 2, "entries": []}', b"\xff\xfe",
     b'{"version": 1, "entries": ' + b"[" * 200_000, b'{"version": 1, "entries": [{"name": "\\ud800"}]}'],
)  # fmt: skip
def test_what_is_no_toc_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode(data)


def test_size_is_bounded() -> None:
    with pytest.raises(FormatError, match=f"more than {MAX_TOC_SIZE}"):
        decode(bytes(MAX_TOC_SIZE + 1))


values: st.SearchStrategy[Any] = st.one_of(
    st.integers(-10, 40), st.sampled_from([1 << 31, 1 << 63, -(1 << 63)]), st.text(max_size=3), st.none(), st.just([])
)
names = st.sampled_from(["name", "type", "size", "offset", "innerOffset", "chunkSize", "chunkOffset", "chunkDigest",
                         "linkName", "uid", "mode", "devMajor", "modtime", "xattrs", "digest"])  # fmt: skip
kinds = st.sampled_from(["reg", "chunk", "dir", "symlink", "hardlink", "char", "fifo"])
wild = st.builds(
    lambda kind, name, fields: {"type": kind, "name": name, "chunkDigest": DIGEST, **fields},
    kinds,
    st.sampled_from(["a", "b", "a/b", "../a", ""]),
    st.dictionaries(names, values, max_size=4),
)


@given(st.lists(wild, max_size=8), st.booleans())
def test_whatever_a_toc_says_is_sound_or_refused(entries: list[dict[str, Any]], verify: bool) -> None:
    try:
        tree, table = read(*entries, verify=verify)
    except LayerError:
        return
    for _, entry in tree.walk():
        chunks = [table[number] for number in range(entry.first_chunk, entry.first_chunk + entry.chunk_count)]
        assert sum(each.size for each in chunks) == (entry.size if entry.is_file else 0)
        assert all(0 <= each.offset < BLOB_SIZE - 1000 for each in chunks)
        assert not verify or all(each.digest for each in chunks)


# --- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("", 0),
        ("1970-01-01T00:00:00Z", 0),
        ("2020-09-13T12:26:40Z", 1_600_000_000 * 10**9),
        ("2020-09-13T14:26:40+02:00", 1_600_000_000 * 10**9),
        ("2020-09-13T12:26:40.123456789Z", 1_600_000_000_123_456_789),
        ("2020-09-13T12:26:40.5Z", 1_600_000_000_500_000_000),
        ("1969-12-31T23:59:59Z", -(10**9)),
        ("9999-12-31T23:59:59Z", 253_402_300_799 * 10**9),
        ("yesterday", 0),
        ("2020-13-13T12:26:40Z", 0),
        ("2020-09-13T12:26:40", 0),
        ("10000-01-01T00:00:00Z", 0),
    ],
)
def test_modtime_is_parsed(text: str, nanoseconds: int) -> None:
    assert parse_modtime(text) == nanoseconds


@given(st.integers(-62_135_596_800 * 10**9, 253_402_300_799 * 10**9))
def test_modtime_is_kept_to_the_nanosecond(nanoseconds: int) -> None:
    assert parse_modtime(format_modtime(nanoseconds)) == nanoseconds


@given(st.integers(-(10**30), 10**30))
def test_any_time_can_be_written(nanoseconds: int) -> None:
    format_modtime(nanoseconds)


# --- writing -------------------------------------------------------------------------------------


def test_encoded_toc_is_read_again_and_says_only_what_it_must() -> None:
    entries = [TocEntry("d/", "dir", mode=0o755), TocEntry("f", "reg", digest=f"sha256:{hashlib.sha256().hexdigest()}")]
    data = encode_toc(entries)
    assert decode(data) == entries
    assert json.loads(data) == {
        "version": 1,
        "entries": [
            {"name": "d/", "type": "dir", "mode": 0o755},
            {"name": "f", "type": "reg", "digest": entries[1].digest},
        ],
    }
