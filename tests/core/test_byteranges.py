"""Sets of byte ranges against a model that holds every byte by itself."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from lazylayer.api.byteranges import ByteRange, ByteRanges

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=25)


@given(ranges, st.integers(0, 60), st.integers(0, 60))
def test_byte_ranges_are_a_set_of_bytes(added: list[tuple[int, int]], start: int, end: int) -> None:
    ranges, model = ByteRanges(), set[int]()
    for one, other in added:
        ranges.add(one, other)
        model.update(range(one, other))
    assert set().union(*(range(*each) for each in ranges)) == model
    assert ranges.total == len(model)
    assert ranges.covers(start, end) == model.issuperset(range(start, end))
    missing = ranges.missing(start, end)
    assert [byte for each in missing for byte in range(*each)] == [b for b in range(start, end) if b not in model]
    listed = list(ranges)
    assert all(one.end < other.start for one, other in itertools.pairwise(listed))


def test_touching_ranges_become_one() -> None:
    ranges = ByteRanges()
    ranges.add(0, 5)
    ranges.add(5, 9)
    assert list(ranges) == [ByteRange(0, 9)]
