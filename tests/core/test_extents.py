"""Sets of byte ranges against a model that holds every byte by itself."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from lazylayer.extents import Extent, ExtentSet

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=25)


@given(ranges, st.integers(0, 60), st.integers(0, 60))
def test_an_extent_set_is_a_set_of_bytes(added: list[tuple[int, int]], start: int, end: int) -> None:
    extents, model = ExtentSet(), set[int]()
    for one, other in added:
        extents.add(one, other)
        model.update(range(one, other))
    assert set().union(*(range(*each) for each in extents)) == model
    assert extents.total == len(model)
    assert extents.covers(start, end) == model.issuperset(range(start, end))
    missing = extents.missing(start, end)
    assert [byte for each in missing for byte in range(*each)] == [b for b in range(start, end) if b not in model]
    listed = list(extents)
    assert all(one.end < other.start for one, other in itertools.pairwise(listed))


def test_touching_extents_become_one() -> None:
    extents = ExtentSet()
    extents.add(0, 5)
    extents.add(5, 9)
    assert list(extents) == [Extent(0, 9)]
