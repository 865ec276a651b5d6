"""How much is fetched along with a miss."""

from __future__ import annotations

from lazylayer.fetching.windows import STREAMS, Link, ReadAhead


def test_a_random_reader_gets_the_smallest_window() -> None:
    ahead = ReadAhead(100, 1000)
    assert [ahead.window(member) for member in (5, 90, 17, 3)] == [(100, False)] * 4


def test_a_sequential_reader_doubles_its_window_up_to_the_largest() -> None:
    ahead = ReadAhead(100, 1000)
    window, sequential = ahead.window(0)
    windows = []
    for member in range(1, 7):
        ahead.expect(member, window)
        window, sequential = ahead.window(member)
        assert sequential
        windows.append(window)
    assert windows == [200, 400, 800, 1000, 1000, 1000]


def test_readers_side_by_side_keep_their_own_windows() -> None:
    ahead = ReadAhead(100, 1000)
    ahead.expect(10, 100)
    ahead.expect(500, 400)
    assert ahead.window(500) == (800, True)
    assert ahead.window(10) == (200, True)


def test_only_so_many_readers_are_remembered() -> None:
    ahead = ReadAhead(100, 1000)
    for member in range(STREAMS + 1):
        ahead.expect(member, 100)
    assert ahead.window(0) == (100, False)
    assert ahead.window(STREAMS) == (200, True)


def test_a_slow_first_byte_makes_the_neighbourhood_cheap() -> None:
    ahead = ReadAhead(1000, 1_000_000)
    for _ in range(20):
        ahead.link.observe(latency=0.05, size=1_000_000, seconds=10.0)  # 50 ms and 100 kB/s
    assert ahead.window(7) == (2500, False), "5000 are cheap, but two and a half times the smallest is the most"


def test_nothing_is_cheap_on_an_unknown_link() -> None:
    assert Link().cheap == 0


def test_the_smallest_window_is_never_above_the_largest() -> None:
    assert ReadAhead(100, 10).window(0) == (100, False)
