"""Large tables of contents are decoded in pieces, counted, and bounded in memory."""

from __future__ import annotations

import json
import random
import tracemalloc
from typing import Any

import pytest

from lazylayer.errors import FormatError
from lazylayer_tarlayers.toc import TocEntry
from lazylayer_tarlayers.tocdecoding import decode_entries
from lazylayer_tarlayers.tocreading import read_toc

pytestmark = pytest.mark.timeout(120)

MIB = 1 << 20
ODD = ["plain", "}", "},{", '}, {"name"', "}]", "\\", '\\\\"', '\\"},{', "é,\U0001f600", "[{", "\n\t}", '"entries":[{']


def decode(data: bytes, **options: int) -> list[TocEntry]:
    return [entry for entries in decode_entries(data, **options) for entry in entries]


def odd_entries(count: int) -> list[dict[str, Any]]:
    chance = random.Random(7)
    entries = []
    for number in range(count):
        entry: dict[str, Any] = {"name": f"{number}{chance.choice(ODD)}", "type": "reg"}
        if chance.random() < 0.3:
            entry["xattrs"] = {chance.choice(ODD): "AAE="}
        if chance.random() < 0.2:
            entry["unknown"] = {"a": [chance.choice(ODD), 1], "b": {"c": {}}, "d": chance.choice(ODD)}
        entries.append(entry)
    return entries


@pytest.mark.parametrize("layout", [{"indent": "\t"}, {"separators": (",", ":")}, {"ensure_ascii": False}])
@pytest.mark.parametrize("after", [{}, {"tarSplitDigest": "sha256:}]", "x": [1, 2, {"y": "]"}]}])
def test_pieces_give_what_the_whole_gives(layout: dict[str, Any], after: dict[str, Any]) -> None:
    entries = odd_entries(60_000)
    data = json.dumps({"before": "[{}]", "version": 1, "entries": entries, **after}, **layout).encode()
    pieces = list(decode_entries(data))
    assert len(pieces) > 5
    found = [entry for piece in pieces for entry in piece]
    assert [entry.name for entry in found] == [entry["name"] for entry in entries]
    assert [list(entry.xattrs or ()) for entry in found] == [list(entry.get("xattrs", ())) for entry in entries]


LARGE = b",".join(b'{"name":"%d","type":"reg"}' % number for number in range(60_000))


@pytest.mark.parametrize(
    "data",
    [
        b'{"version":2,"entries":[%s]}' % LARGE,
        b'{"entries":[%s]}' % LARGE,
        b'{"version":1,"entries":[%s]' % LARGE,
        b'{"version":1,"entries":[%s' % LARGE,
        b'{"version":1,"entries":[%s}' % LARGE,
        b'{"version":1,"entries":[%s,]}' % LARGE,
        b'{"version":1,"entries":[%s]}}' % LARGE,
        b'{"version":1,"entries":[%s],"entries":[{"name":"x"}]}' % LARGE,
        b'{"version":1,"x":{"entries":[%s]}}' % LARGE,
        b'{"version":1,"entries":[%s,{"name":1}]}' % LARGE,
        b'{"version":1,"entries":[%s {"name":"x"}]}' % LARGE,
        b'{"version":1,"entries":[%s]}' % (b"{}," * 30_000),
        b'{"version":1,"entries":[{"name":"%s"}]}' % (b"x" * 20 * MIB),
        b'{"version":1,"entries":[{"name":"%s"}]}' % (b"},{" * 7 * MIB),
        b"{" * 100_000,
        b'{"version":1,"entries":' + b"[" * 20 * MIB,
        b'{"version":1,"entries":[' + b'{"a":' * 5 * MIB,
    ],
)
def test_large_tocs_that_are_broken_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="table of contents"):
        decode(data)


def test_entries_are_counted() -> None:
    data = b'{"version":1,"entries":[%s]}' % LARGE
    assert len(decode(data, max_entries=60_000)) == 60_000
    for limit in (59_999, 10):
        with pytest.raises(FormatError, match=f"more than {limit} entries"):
            decode(data, max_entries=limit)
    with pytest.raises(FormatError, match="more than 2 entries"):
        decode(b'{"version":1,"entries":[{},{},{}]}', max_entries=2)


@pytest.mark.parametrize(
    "entry", [b"{}", b'{"name":"a","type":"reg"}', b'{"name":"a","type":"dir"}', b'{"name":"a","xattrs":{}}']
)
def test_bomb_of_short_entries_is_refused_in_little_memory(entry: bytes) -> None:
    count = 12 * MIB // (len(entry) + 1)
    data = b'{"version":1,"entries":[' + b",".join([entry] * count) + b"]}"
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            read_toc(data, blob_size=60_000, data_end=50_000, verify=True, max_entries=100_000)
        assert tracemalloc.get_traced_memory()[1] < 60 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("entry", ['{"name":"%x","type":"reg"}', '{"name":"%x","type":"fifo","mode":420}'])
def test_short_entries_take_300_bytes_each(entry: str) -> None:
    entries = b",".join(entry.encode() % number for number in range(300_000))
    data = b'{"version":1,"entries":[%s]}' % entries
    tracemalloc.start()
    try:
        tree, _ = read_toc(data, blob_size=1000, data_end=900, verify=True)
        assert tree.inodes == 300_001
        assert tracemalloc.get_traced_memory()[1] <= 300 * tree.inodes
    finally:
        tracemalloc.stop()
