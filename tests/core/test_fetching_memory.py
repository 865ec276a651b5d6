"""Memory that fetching holds."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec

from lazylayer.fetching.chunkstore import ChunkStore
from lazylayer_testing.synthetic import DictCache, SyntheticLayer, inflate
from synthetic.opened import Opened


class Watched(bytes):
    """Bytes of which is known how many are held by somebody."""

    alive = 0

    def __del__(self) -> None:
        Watched.alive -= 1


def test_what_was_fetched_and_kept_is_not_held_in_memory() -> None:
    """A prefetch of gigabytes must not be in memory as a whole."""
    made = SyntheticLayer({b"big": random.Random(1).randbytes(400_000)})
    most = 0

    def inflate_watched(data: bytes | memoryview, size: int, offset: int) -> bytes:
        nonlocal most
        Watched.alive += 1
        most = max(most, Watched.alive)
        return Watched(inflate(data, size, offset))

    made.contents = msgspec.structs.replace(made.contents, inflate=inflate_watched)
    opened = Opened(made)
    opened.prefetch((0, len(made.data)))
    assert opened.layer.complete
    assert 0 < most < 5


class Gauge:
    """Inflates, and keeps the most bytes that were being inflated or kept at the same time."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.lock = threading.Lock()

    def inflate(self, data: bytes | memoryview, size: int, offset: int) -> bytes:
        with self.lock:
            self.now += size
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        return inflate(data, size, offset)

    def put(self, size: int) -> None:
        with self.lock:
            self.now -= size


class MeteredCache(DictCache):
    def __init__(self, gauge: Gauge) -> None:
        super().__init__()
        self.gauge = gauge

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        self.gauge.put(len(data))


def test_readers_of_all_layers_share_a_budget_of_bytes_to_inflate() -> None:
    """Sixteen readers of large chunks held gigabytes, of an image of few megabytes."""
    gauge = Gauge()
    store = ChunkStore(MeteredCache(gauge), inflated_bytes=25_000)
    layers = [
        SyntheticLayer({b"%d" % n: random.Random(n + m).randbytes(10_000) for n in range(8)}, 10_000) for m in (0, 9)
    ]
    for made in layers:
        made.contents = msgspec.structs.replace(made.contents, inflate=gauge.inflate)
    opened = [Opened(made, store=store) for made in layers]
    with ThreadPoolExecutor(16) as threads:
        reads = [threads.submit(each.read, name, 0, 1) for each in opened for name in each.made.files]
        assert [len(each.result(20)) for each in reads] == [1] * 16
    assert 10_000 <= gauge.most <= 25_000


def test_a_chunk_larger_than_the_budget_is_inflated_alone() -> None:
    gauge = Gauge()
    store = ChunkStore(MeteredCache(gauge), inflated_bytes=5000)
    made = SyntheticLayer({b"%d" % n: random.Random(n).randbytes(10_000) for n in range(4)}, 10_000)
    made.contents = msgspec.structs.replace(made.contents, inflate=gauge.inflate)
    opened = Opened(made, store=store)
    with ThreadPoolExecutor(4) as threads:
        reads = [threads.submit(opened.read, name, 0, 1) for name in made.files]
        assert [len(each.result(20)) for each in reads] == [1] * 4
    assert gauge.most == 10_000
