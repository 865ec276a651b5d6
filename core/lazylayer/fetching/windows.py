"""How much to fetch at once: the neighbourhood of a miss, as far as the link makes it cheap.

Sequential readers are recognised by where their next miss would be; each doubles its window up to a
maximum. Everything else gets the smallest window that costs about as much as the request itself.

Not safe to use from several threads at once; the owner locks.
"""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Link", "ReadAhead"]

STREAMS = 16

_CHEAPEST = 2.5
"""How many times the smallest window a miss fetches at most on a link where that is cheap: more brings
more bytes that nobody reads than requests that nobody needs (measured as in `lazylayer.fetching.locality`)."""


class Link:
    """What one blob's source has shown so far: seconds to the first byte, and bytes per second."""

    def __init__(self) -> None:
        self._latency = 0.0
        self._bandwidth = 0.0

    def observe(self, latency: float, size: int, seconds: float) -> None:
        """One request: its first byte came after `latency`, then `size` bytes took `seconds`."""
        self._latency = latency if not self._latency else 0.7 * self._latency + 0.3 * latency
        if size >= 64 * 1024 and seconds > 0:
            bandwidth = size / seconds
            self._bandwidth = bandwidth if not self._bandwidth else 0.7 * self._bandwidth + 0.3 * bandwidth

    @property
    def cheap(self) -> int:
        """Bytes that arrive in the time that a request of its own would have cost; 0 if unknown."""
        return int(self._latency * self._bandwidth)


class ReadAhead:
    """Decides the window of each miss of one layer. Windows in bytes, places are member numbers."""

    def __init__(self, smallest: int, largest: int) -> None:
        self.link = Link()
        self._smallest = smallest
        self._largest = max(largest, smallest)
        self._streams: OrderedDict[int, int] = OrderedDict()

    def window(self, member: int) -> tuple[int, bool]:
        """How much to fetch for a miss at `member`, and whether it goes on a sequential reading."""
        window = self._streams.pop(member, 0)
        if window:
            return min(2 * window, self._largest), True
        cheap = min(self.link.cheap, int(_CHEAPEST * self._smallest), self._largest)
        return max(cheap, self._smallest), False

    def expect(self, member: int, window: int) -> None:
        """Remembers that what was fetched with `window` ends before `member`."""
        self._streams[member] = window
        self._streams.move_to_end(member)
        if len(self._streams) > STREAMS:
            self._streams.popitem(last=False)
