"""The chunk table: order, members, lookups, and numbers that cannot be true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer.api.chunks import MAX_CHUNK_SIZE, ChunkTable
from lazylayer.errors import FormatError

DIGEST = b"\1" * 32


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), min_size=1, max_size=40))
def test_members_partition_the_chunks_in_blob_order(places: list[tuple[int, int]]) -> None:
    table = ChunkTable(1000)
    for offset, inner in places:
        table.append(offset=offset * 10, inner=inner * 5, file_offset=0, size=5, digest=DIGEST)
    table.finish(900)
    offsets = sorted({offset * 10 for offset, _ in places})
    assert table.members == len(offsets)
    for member, offset in enumerate(offsets):
        byte_range = table.member_range(member)
        assert byte_range.start == offset
        assert byte_range.end == (offsets[member + 1] if member + 1 < len(offsets) else 900)
        chunks = list(table.chunks_of(member))
        assert sorted(chunks) == [n for n, place in enumerate(places) if place[0] * 10 == offset]
        assert [table[n].inner for n in chunks] == sorted(table[n].inner for n in chunks)
        assert all(table.member_of(n) == member for n in chunks)
        assert table.member_at(offset) == member
    assert table.member_at(offsets[-1] + 1) == table.members
    assert table.member_at(0) == 0


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.data())
def test_find_names_the_chunk_that_holds_an_offset(sizes: list[int], data: st.DataObject) -> None:
    table = ChunkTable(1000)
    table.append(offset=0, inner=0, file_offset=0, size=3, digest=DIGEST)
    at = 0
    for number, size in enumerate(sizes):
        table.append(offset=10 + number, inner=0, file_offset=at, size=size, digest=DIGEST)
        at += size
    table.finish(900)
    offset = data.draw(st.integers(0, at - 1))
    chunk = table[table.find(1, len(sizes), offset)]
    assert chunk.file_offset <= offset < chunk.file_offset + chunk.size


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": -1},
        {"offset": 1000},
        {"inner": -1},
        {"size": 0},
        {"size": -5},
        {"size": MAX_CHUNK_SIZE + 1},
        {"inner": MAX_CHUNK_SIZE},
        {"file_offset": -1},
        {"file_offset": (1 << 63) - 1},
        {"digest": b"short"},
        {"digest": bytes(32)},
    ],
)
def test_numbers_that_cannot_be_true_are_refused(wrong: dict[str, int | bytes]) -> None:
    table = ChunkTable(1000)
    right: dict[str, int | bytes] = {"offset": 5, "inner": 0, "file_offset": 0, "size": 1, "digest": DIGEST}
    with pytest.raises(FormatError):
        table.append(**{**right, **wrong})  # type: ignore[arg-type]
    table.append(**right)  # type: ignore[arg-type]


def test_a_chunk_behind_the_data_is_refused() -> None:
    table = ChunkTable(1000)
    table.append(offset=500, inner=0, file_offset=0, size=1, digest=DIGEST)
    with pytest.raises(FormatError, match="behind the end"):
        table.finish(500)


def test_an_empty_table_has_no_members() -> None:
    table = ChunkTable(10)
    table.finish(5)
    assert (len(table), table.members, table.member_at(0), table.total_size) == (0, 0, 0, 0)


def test_gap_behind_a_member_is_not_fetched() -> None:
    """Whatever a table says: a member is no longer than its chunks could be, compressed."""
    table = ChunkTable(1 << 40)
    table.append(offset=0, inner=0, file_offset=0, size=10, digest=b"")
    table.append(offset=1 << 30, inner=0, file_offset=0, size=1000, digest=b"")
    table.append(offset=1 << 30, inner=5000, file_offset=0, size=1_000_000, digest=b"")
    table.append(offset=1 << 30, inner=6000, file_offset=0, size=1, digest=b"")
    table.finish(1 << 40)
    assert table.member_range(0).size < 100_000
    assert 2_000_000 < table.member_range(1).size < 3_000_000
