"""What fetching holds in memory."""

from __future__ import annotations

import random

import msgspec

from lazylayer_testing.synthetic import SyntheticLayer, inflate
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

    def inflate_watched(data: bytes | memoryview, size: int) -> bytes:
        nonlocal most
        Watched.alive += 1
        most = max(most, Watched.alive)
        return Watched(inflate(data, size))

    made.contents = msgspec.structs.replace(made.contents, inflate=inflate_watched)
    opened = Opened(made)
    opened.prefetch((0, len(made.data)))
    assert opened.layer.complete
    assert 0 < most < 5
