"""A reader gets the member that it needs before what comes along."""

from __future__ import annotations

import random
import time

import pytest

from lazylayer.errors import ResolveError, UnavailableError
from lazylayer_testing.synthetic import DictCache, SyntheticLayer
from synthetic.opened import Opened

FILES = {b"%d.py" % number: random.Random(number).randbytes(900) for number in range(8)}


class OrderedCache(DictCache):
    """Remembers in which order values came."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[bytes] = []

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        self.kept.append(bytes(data))

    def wait_for(self, count: int) -> None:
        until = time.monotonic() + 20
        while len(self.kept) < count:
            assert time.monotonic() < until, f"{len(self.kept)} of {count} values were kept"
            time.sleep(0.005)


def open_siblings(cache: OrderedCache) -> Opened:
    """Open a layer of which a miss fetches all files at once."""
    opened = Opened(SyntheticLayer(FILES), cache, window_min=1 << 20)
    opened.layer.windows.find_siblings()
    return opened


def test_a_reader_does_not_wait_for_what_comes_along_in_front_of_its_bytes() -> None:
    """Siblings that lie before the needed file arrive first, and are unpacked and kept after it."""
    cache = OrderedCache()
    opened = open_siblings(cache)
    assert opened.read(b"5.py") == FILES[b"5.py"]
    cache.wait_for(len(FILES))
    opened.layer.close()
    assert sorted(cache.kept) == sorted(FILES.values())
    assert cache.kept[0] == FILES[b"5.py"]


def test_what_arrived_before_a_request_broke_is_kept() -> None:
    cache = OrderedCache()
    opened = open_siblings(cache)

    def break_late(at: int) -> None:
        if at > len(opened.made.data) // 2:
            raise UnavailableError("the connection broke")

    opened.source.on_piece = break_late
    with pytest.raises(ResolveError, match="the connection broke"):
        opened.read(b"7.py")
    cache.wait_for(3)
    opened.layer.close()
    assert set(cache.kept[:3]) <= set(FILES.values())
