"""What is fetched along with a miss, once it is known what is read together."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from lazylayer.api.layers import Locality
from lazylayer.api.tree import Entry
from lazylayer.fetching.locality import Siblings
from lazylayer_testing.synthetic import SyntheticLayer


def made_of(*names: bytes, size: int = 1000) -> SyntheticLayer:
    return SyntheticLayer({name: random.Random(name).randbytes(size) for name in names})


def names_around(made: SyntheticLayer, name: bytes, budget: int, *, here: tuple[bytes, ...] = ()) -> list[bytes]:
    table = made.contents.chunks
    owners = {table.member_of(entry.first_chunk): name for name, entry in made.entries.items()}
    missing = set(owners) - {table.member_of(made.entries[each].first_chunk) for each in here}
    around = Siblings(made.contents.tree, table).around(
        table.member_of(made.entries[name].first_chunk), budget, missing.__contains__
    )
    return [owners[member] for member in around]


def test_files_of_the_same_kind_in_the_same_directory_come_along() -> None:
    made = made_of(b"a/1.pyc", b"a/1.py", b"a/2.pyc", b"b/3.pyc", b"a/4.pyc", b"a/none")
    assert names_around(made, b"a/2.pyc", 100_000) == [b"a/1.pyc", b"a/2.pyc", b"a/4.pyc"]
    assert names_around(made, b"a/none", 100_000) == [b"a/none"]


def test_the_nearest_come_first_and_no_more_than_the_budget() -> None:
    made = made_of(*(b"d/%d.x" % number for number in range(9)))
    assert names_around(made, b"d/4.x", 3 * 1030) == [b"d/3.x", b"d/4.x", b"d/5.x"]
    assert names_around(made, b"d/4.x", 1) == [b"d/4.x"], "what is needed comes whatever it costs"


def test_what_is_here_is_not_fetched_again() -> None:
    made = made_of(b"1.x", b"2.x", b"3.x")
    assert names_around(made, b"2.x", 100_000, here=(b"1.x",)) == [b"2.x", b"3.x"]


def test_a_large_file_has_no_siblings() -> None:
    files = {b"big.x": random.Random(1).randbytes(200_000), b"2.x": b"2", b"3.x": b"3"}
    made = SyntheticLayer(files, chunk_size=1 << 20)
    assert names_around(made, b"big.x", 1 << 20) == [b"big.x"]
    assert names_around(made, b"2.x", 1 << 20) == [b"2.x", b"3.x"]


class Everything:
    """A policy that follows every file but `first`."""

    def follows(self, name: bytes, entry: Entry) -> bool:
        return name != b"first"

    def missed(self, path: bytes, entry: Entry) -> None: ...


def around_second_chunk(*localities: Locality) -> list[int]:
    """The members fetched with the second one of a file, counted from its first; the fourth is here."""
    made = SyntheticLayer({b"first": b"1", b"tool": random.Random(2).randbytes(5000)})
    siblings = Siblings(made.contents.tree, made.contents.chunks, localities)
    member = made.contents.chunks.member_of(made.entries[b"tool"].first_chunk)
    return [each - member for each in siblings.around(member + 1, 100_000, lambda each: each != member + 3)]


def test_what_follows_in_a_followed_file_comes_along_until_something_is_here() -> None:
    assert around_second_chunk(Everything()) == [1, 2]


def test_what_follows_in_another_file_does_not() -> None:
    assert around_second_chunk() == [1]


def test_where_a_followed_file_starts_is_known_with_those_who_follow_it() -> None:
    made = SyntheticLayer({b"first": b"1", b"d/tool": random.Random(2).randbytes(5000)})
    table, entry = made.contents.chunks, made.entries[b"d/tool"]
    one, other = Everything(), Everything()
    siblings = Siblings(made.contents.tree, table, [one, other])
    followed = siblings.followed_at(table.member_of(entry.first_chunk))
    assert followed == ([one, other], b"/d/tool", entry)
    assert siblings.followed_at(table.member_of(entry.first_chunk) + 1) is None
    assert siblings.followed_at(table.member_of(made.entries[b"first"].first_chunk)) is None


@given(
    names=st.lists(st.sampled_from([b"a/%d.x", b"a/%d.y", b"b/%d.x"]), min_size=1, max_size=40),
    budget=st.integers(0, 50_000),
    seed=st.integers(0, 1000),
)
def test_any_layer(names: list[bytes], budget: int, seed: int) -> None:
    """Never what is here, never another kind, in order, and within the budget but for what is needed."""
    made = made_of(*(name % number for number, name in enumerate(names)))
    chosen = random.Random(seed)
    name = chosen.choice(list(made.entries))
    here = tuple(each for each in made.entries if each != name and chosen.random() < 0.3)
    around = names_around(made, name, budget, here=here)
    table = made.contents.chunks
    size = sum(table.member_range(table.member_of(made.entries[each].first_chunk)).size for each in around)
    assert name in around
    assert not set(around) & set(here)
    assert {(each[:2], each[-2:]) for each in around} == {(name[:2], name[-2:])}
    assert around == [each for each in made.entries if each in around]
    assert around == [name] or size <= budget
