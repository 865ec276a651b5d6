"""Chunks on their way: one fetch each, neighbours along, nothing unverified, no reader left waiting."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.chunks import ChunkTable
from lazylayer.api.layers import PrefetchPlan
from lazylayer.errors import LayerError, LazylayerError, UnavailableError, VerificationError
from lazylayer.fetching.chunkstore import ChunkStore
from lazylayer.plugin.guardedcache import GuardedCache
from lazylayer_testing.synthetic import DictCache, SyntheticLayer
from synthetic.opened import Opened

FILES = {b"%02d" % n: random.Random(n).randbytes(2500) for n in range(30)}


@pytest.fixture
def opened() -> Opened:
    return Opened(SyntheticLayer(FILES))


def lying(made: SyntheticLayer, size: int, data_end: int = 0) -> SyntheticLayer:
    """A layer whose table gives another size for its only chunk, and maybe another end of the data."""
    (entry,), chunk = made.entries.values(), made.chunks[0]
    table = ChunkTable(len(made.data))
    table.append(offset=chunk.offset, inner=chunk.inner, file_offset=0, size=size, digest=chunk.digest)
    table.finish(data_end or made.data_end)
    entry.size = size
    made.contents = msgspec.structs.replace(made.contents, chunks=table)
    return made


@given(
    files=st.dictionaries(
        st.binary(min_size=1, max_size=3).filter(lambda n: not set(n) & set(b"/\0.")),
        st.binary(max_size=90),
        min_size=1,
        max_size=6,
    ),
    chunk_size=st.integers(1, 40),
    pack=st.integers(0, 60),
    windows=st.tuples(st.integers(1, 200), st.integers(1, 400)),
    reads=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100), st.integers(0, 100)), max_size=20),
)
@settings(deadline=None, max_examples=60)
def test_every_read_returns_the_bytes_of_the_file(
    files: dict[bytes, bytes],
    chunk_size: int,
    pack: int,
    windows: tuple[int, int],
    reads: list[tuple[int, int, int]],
) -> None:
    opened = Opened(SyntheticLayer(files, chunk_size, pack), window_min=windows[0], window_max=windows[1])
    names = sorted(files)
    for which, offset, size in reads:
        name = names[which % len(names)]
        assert opened.read(name, offset, size) == files[name][offset : offset + size]


def test_a_chunk_is_fetched_once(opened: Opened) -> None:
    assert opened.read(b"03") == opened.read(b"03") == FILES[b"03"]
    assert len(opened.source.asked) == 3, "one request per chunk, since the window is one byte"


def test_eight_readers_of_a_cold_file_cause_one_fetch_of_each_chunk(opened: Opened) -> None:
    opened.source.gate.clear()
    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(opened.read, b"07") for _ in range(8)]
        opened.source.gate.set()
        assert {future.result() for future in futures} == {FILES[b"07"]}
    fetched = [byte_range for ranges in opened.source.asked for byte_range in ranges]
    assert len(fetched) == len(set(fetched)) == 3


def test_overlapping_requests_do_not_fetch_a_member_twice() -> None:
    opened = Opened(SyntheticLayer(FILES), window_min=6000, window_max=6000)
    with ThreadPoolExecutor(16) as threads:
        results = threads.map(opened.read, sorted(FILES) * 2)
        assert list(results) == [FILES[name] for name in sorted(FILES) * 2]
    again = opened.source.asked_bytes - len(opened.made.data)
    assert again <= 3 * 1024, "at most the gap that the reader left, which is cheaper to fetch again than to leave out"


def test_a_miss_fetches_its_neighbourhood_in_one_request() -> None:
    opened = Opened(SyntheticLayer(FILES), window_min=6000, window_max=6000)
    opened.read(b"00", 0, 10)
    assert len(opened.source.asked) == 1
    assert 4000 < opened.source.asked_bytes <= 6000


def test_sequential_reading_grows_the_window_and_reads_ahead() -> None:
    made = SyntheticLayer({b"big": random.Random(1).randbytes(400_000)})
    opened = Opened(made, window_min=2000, window_max=64_000)
    for offset in range(0, 400_000, 1000):
        assert opened.read(b"big", offset, 1000) == made.files[b"big"][offset : offset + 1000]
    asked = [sum(byte_range.size for byte_range in ranges) for ranges in opened.source.asked]
    assert max(asked) > 50_000
    assert len(asked) < 20
    assert opened.source.asked_bytes <= len(made.data)


def test_random_reading_keeps_the_window_small() -> None:
    made = SyntheticLayer({b"big": random.Random(1).randbytes(400_000)})
    opened = Opened(made, window_min=2000, window_max=64_000)
    places = list(range(0, 400_000, 40_000))
    random.Random(5).shuffle(places)
    for offset in places:
        opened.read(b"big", offset, 10)
    assert all(sum(byte_range.size for byte_range in ranges) < 20_000 for ranges in opened.source.asked)


def test_a_corrupted_chunk_is_an_error_and_its_neighbours_are_not() -> None:
    made = SyntheticLayer(FILES)
    opened = Opened(made, window_min=100_000, window_max=100_000)
    spoiled = bytearray(made.data)
    spoiled[made.chunks[made.entries[b"05"].first_chunk].offset + 30] ^= 1
    opened.source.data = bytes(spoiled)
    with pytest.raises(VerificationError):
        opened.read(b"05")
    assert opened.read(b"06") == FILES[b"06"]
    assert opened.layer.state().error
    assert opened.kinds().count("failed") == 1
    with pytest.raises(VerificationError):
        opened.read(b"05")
    assert opened.kinds().count("failed") == 1, "the same failure is reported once"
    opened.source.data = made.data
    assert opened.read(b"05") == FILES[b"05"], "a later fetch may heal it"


def test_a_chunk_with_the_wrong_digest_never_gets_into_the_cache() -> None:
    honest, liar = SyntheticLayer({b"a": b"x" * 50}), SyntheticLayer({b"a": b"y" * 50})
    opened = Opened(honest)
    opened.source.data = liar.data.ljust(len(honest.data), b"-")
    with pytest.raises(VerificationError):
        opened.read(b"a")
    assert not opened.cache.values


def test_a_damaged_cached_chunk_is_fetched_again() -> None:
    made, cache = SyntheticLayer(FILES), DictCache()
    Opened(made, cache).read(b"01")
    key = next(iter(cache.values))
    cache.values[key] = cache.values[key][:-1] + b"?"
    fresh = Opened(made, cache)
    assert fresh.read(b"01") == FILES[b"01"]
    assert len(fresh.source.asked) == 1
    assert cache.values[key] == FILES[b"01"][:1000]


def test_what_is_cached_needs_no_source() -> None:
    made, cache = SyntheticLayer(FILES), DictCache()
    before = Opened(made, cache)
    for name in FILES:
        before.read(name)
    after = Opened(made, cache)
    after.source.fail = lambda _: UnavailableError("away")
    assert [after.read(name) for name in sorted(FILES)] == [FILES[name] for name in sorted(FILES)]


def test_a_source_that_fails_raises_in_every_reader_and_is_tried_again(opened: Opened) -> None:
    opened.source.gate.clear()
    opened.source.fail = lambda _: UnavailableError("away")
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(opened.read, b"02") for _ in range(4)]
        opened.source.gate.set()
        assert all(isinstance(future.exception(), UnavailableError) for future in futures)
    opened.source.fail = lambda _: None
    assert opened.read(b"02") == FILES[b"02"]


def test_a_plugin_that_raises_something_else_is_a_layer_error(opened: Opened) -> None:
    opened.source.fail = lambda _: ZeroDivisionError("a bug")
    with pytest.raises(LayerError, match="a bug"):
        opened.read(b"02")


def test_a_table_that_promises_less_of_a_cached_chunk_gets_nothing_of_it() -> None:
    """The digest is that of a longer chunk, which another layer left in the cache."""
    honest = SyntheticLayer({b"a": b"x" * 60})
    cache = DictCache()
    first = Opened(honest, cache)
    assert first.read(b"a") == b"x" * 60
    liar = lying(SyntheticLayer({b"a": b"x" * 60}), size=25)
    for store in (first.store, None):
        opened = Opened(liar, cache, store)
        with pytest.raises(VerificationError):
            opened.read(b"a")
        assert opened.layer.state().error
    assert first.read(b"a") == b"x" * 60, "nor does it take the chunk away"


def test_a_cache_that_keeps_nothing_does_not_multiply_requests() -> None:
    class Sieve(DictCache):
        def put(self, key: str, data: bytes) -> None:
            pass

    made = SyntheticLayer({b"big": random.Random(1).randbytes(8000)}, chunk_size=8000)
    opened = Opened(made, Sieve())
    for offset in range(0, 8000, 100):
        assert opened.read(b"big", offset, 100) == made.files[b"big"][offset : offset + 100]
    assert len(opened.source.asked) == 1


def test_a_cache_that_raises_is_a_miss() -> None:
    class Broken(DictCache):
        def get(self, key: str) -> bytes | None:
            raise OSError("broken")

        def put(self, key: str, data: bytes) -> None:
            raise OSError("broken")

        def remove(self, key: str) -> None:
            raise OSError("broken")

    store = ChunkStore(GuardedCache("cache_broken", Broken()))
    opened = Opened(SyntheticLayer(FILES), store=store)
    assert opened.read(b"02") == FILES[b"02"]


def test_chunks_without_digests_are_believed_only_from_this_process() -> None:
    made, cache = SyntheticLayer(FILES, digests=False), DictCache()
    assert Opened(made, cache).read(b"01") == FILES[b"01"]
    again = Opened(made, cache)
    assert again.read(b"01") == FILES[b"01"]
    assert len(again.source.asked) == 3


def test_a_lying_member_end_does_not_fetch_more_than_its_chunks_can_need() -> None:
    made = SyntheticLayer({b"tiny": b"x" * 10})
    made.data += bytes(10_000_000)
    opened = Opened(lying(made, size=10, data_end=len(made.data)))
    assert opened.read(b"tiny") == b"x" * 10
    assert opened.source.asked_bytes < 100_000


def test_a_member_that_inflates_to_less_is_an_error() -> None:
    with pytest.raises(VerificationError):
        Opened(lying(SyntheticLayer({b"a": b"x" * 50}), size=51)).read(b"a")


# --- prefetch and background ---------------------------------------------------------------------


def test_prefetch_fetches_what_lies_whole_in_the_range_with_one_request(opened: Opened) -> None:
    end = opened.made.chunks[opened.made.entries[b"10"].first_chunk].offset
    opened.prefetch((0, end))
    assert len(opened.source.asked) == 1
    for number in range(10):
        assert opened.read(b"%02d" % number) == FILES[b"%02d" % number]
    assert len(opened.source.asked) == 1
    opened.read(b"10")
    assert len(opened.source.asked) > 1
    assert "prefetched" in opened.kinds()


def test_prefetch_happens_once_and_can_be_waited_for(opened: Opened) -> None:
    assert opened.prefetcher.wait(opened.layer, 0), "nothing was started"
    opened.source.gate.clear()
    opened.plan = lambda: PrefetchPlan((ByteRange(0, 5000),))
    opened.prefetcher.layer(opened.layer, {})
    while not opened.source.asked:
        pass
    opened.prefetcher.layer(opened.layer, {})
    assert not opened.prefetcher.wait(opened.layer, 0.01)
    opened.source.gate.set()
    assert opened.prefetcher.wait(opened.layer, 10)
    assert len(opened.source.asked) == 1


def test_a_failed_prefetch_is_reported_and_wakes_those_who_wait(opened: Opened) -> None:
    opened.source.fail = lambda _: UnavailableError("away")
    opened.prefetch((0, 5000))
    assert opened.prefetcher.wait(opened.layer, 0)
    assert "failed" in opened.kinds()


def drain(opened: Opened, request_size: int = 8000) -> int:
    pieces = 0
    more = True
    while more:
        turn = opened.scheduler.wait_turn()
        assert turn is not None
        more = opened.layer.fetch_some(turn, request_size)
        pieces += 1
        assert pieces < 1000
    return pieces


@pytest.mark.seed(7)
def test_background_fetching_completes_the_layer_in_blob_order(opened: Opened) -> None:
    opened.read(b"15")
    drain(opened)
    background = [byte_range.start for ranges in opened.source.asked[3:] for byte_range in ranges]
    assert background == sorted(background)
    assert opened.layer.complete
    assert opened.kinds() == ["completed"]
    state = opened.layer.state()
    assert (state.fetched, state.percent) == (state.size, 100.0)
    asked = len(opened.source.asked)
    assert [opened.read(name) for name in sorted(FILES)] == [FILES[name] for name in sorted(FILES)]
    assert len(opened.source.asked) == asked
    again = opened.source.asked_bytes - len(opened.made.data)
    assert again <= 3 * 1024, "at most the gap that the reader left: cheaper to fetch again than to leave out"


@pytest.mark.seed(8)
def test_background_fetching_stops_for_a_reader_and_keeps_what_it_has(opened: Opened) -> None:
    turn = opened.scheduler.wait_turn()
    assert turn is not None
    readers: list[object] = []

    def a_reader_comes(at: int) -> None:
        if at > 6000 and not readers:
            readers.append(opened.scheduler.foreground())
            readers[0].__enter__()  # type: ignore[attr-defined]

    opened.source.on_piece = a_reader_comes
    assert opened.layer.fetch_some(turn, 1 << 20)
    assert 6000 < opened.layer.blob.network_bytes < 9000, "it stopped in the middle of its request"
    opened.source.on_piece = lambda _: None
    readers[0].__exit__(None, None, None)  # type: ignore[attr-defined]
    drain(opened)
    assert opened.layer.complete
    assert opened.source.asked_bytes - len(opened.made.data) < len(opened.made.data), "finished members were kept"


def test_a_reader_is_served_when_background_work_gave_its_chunk_up(opened: Opened) -> None:
    turn = opened.scheduler.wait_turn()
    assert turn is not None
    results: list[bytes] = []
    reader = threading.Thread(target=lambda: results.append(opened.read(b"20")))

    def read_in_the_middle(at: int) -> None:
        if at > 6000 and not reader.ident:
            reader.start()
            while not opened.scheduler.busy and not results:
                pass

    opened.source.on_piece = read_in_the_middle
    opened.layer.fetch_some(turn, 1 << 20)
    reader.join(20)
    assert results == [FILES[b"20"]]


def test_background_fetching_leaves_a_cache_alone_that_is_too_small() -> None:
    from lazylayer.api.cache import CacheStatistics

    class Small(DictCache):
        def statistics(self) -> CacheStatistics:
            return CacheStatistics(0, 0, 1000)

    opened = Opened(SyntheticLayer(FILES), Small())
    drain(opened)
    assert not opened.source.asked


def test_background_fetching_goes_on_after_a_failure(opened: Opened) -> None:
    fail = iter([None, UnavailableError("away"), None])

    def next_failure(_: list[ByteRange]) -> Exception | None:
        return next(fail, None)

    opened.source.fail = next_failure
    turn = opened.scheduler.wait_turn()
    assert turn is not None
    opened.layer.fetch_some(turn, 8000)
    with pytest.raises(LazylayerError):
        opened.layer.fetch_some(turn, 8000)
    drain(opened)
    assert opened.layer.complete


def test_found_in_the_cache_counts_as_fetched_and_is_not_fetched() -> None:
    made, cache = SyntheticLayer(FILES), DictCache()
    drain(Opened(made, cache))
    again = Opened(made, cache)
    drain(again)
    assert again.layer.complete
    assert not again.source.asked
    assert again.layer.state().percent == 100.0


def _hammer(opened: Opened, names: list[bytes], wrong: list[bytes]) -> Callable[[], None]:
    def run() -> None:
        for name in names:
            if opened.read(name) != FILES[name]:
                wrong.append(name)

    return run


def test_readers_prefetch_and_background_together_never_disagree() -> None:
    for seed in range(5):
        opened = Opened(SyntheticLayer(FILES), window_min=3000, window_max=20_000)
        wrong: list[bytes] = []
        order = [random.Random(seed * 10 + n).sample(sorted(FILES), len(FILES)) for n in range(6)]
        threads = [threading.Thread(target=_hammer(opened, names, wrong)) for names in order]
        threads.append(threading.Thread(target=opened.prefetch, args=((0, 30_000),)))
        threads.append(threading.Thread(target=drain, args=(opened,)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        assert not wrong


def test_who_fetched_a_member_before_leaves_its_next_flight_alone(opened: Opened) -> None:
    """The cache loses what background work just fetched; a reader fetches it anew before that work ends."""
    turn = opened.scheduler.wait_turn()
    assert turn is not None
    entry = opened.made.entries[b"00"]
    key = f"sha256:{opened.made.contents.chunks.digest(entry.first_chunk).hex()}"
    on_its_way, over = threading.Event(), threading.Event()
    results: list[bytes] = []
    reader = threading.Thread(target=lambda: results.append(opened.read(b"00", 0, 10)))
    background = threading.current_thread()

    def lose_the_first_chunk(at: int) -> None:
        if threading.current_thread() is not background:
            on_its_way.set()
            assert over.wait(20)
        elif at > 3000 and not reader.ident:
            opened.store.forget(key)
            reader.start()
            assert on_its_way.wait(20)

    opened.source.on_piece = lose_the_first_chunk
    opened.layer.fetch_some(turn, 1 << 20)
    over.set()
    reader.join(20)
    assert results == [FILES[b"00"][:10]]
    assert [asked[0].start for asked in opened.source.asked].count(opened.source.asked[0][0].start) == 2
