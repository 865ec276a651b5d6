"""Decide what comes along with a miss: as much of the neighbourhood as the link makes cheap.

Sequential readers are recognised by where their next miss would be; each doubles its window up to a maximum,
and is fetched ahead for. Every other miss gets the smallest window that costs about as much as the request
itself: what follows in the blob at a layer's first miss, and from then on what is read together.

The lock is `Windows._lock`; nothing is asked of a cache or a policy while it is held. `Windows._seeking` is
held, by threads that have served their readers, while it is found out what is read together.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lazylayer.api.layers import LayerContents, Locality
from lazylayer.api.settings import FetchSettings
from lazylayer.fetching.locality import Siblings
from lazylayer.logger import logger

__all__ = ["Link", "ReadAhead", "Window", "Windows"]

STREAMS = 16
"""Sequential readers of one layer that are remembered."""
MAX_TRIGGERS = 16
"""Sequential readers of one layer to fetch ahead for at the same time."""

_CHEAPEST = 2.5
"""Largest window of a miss where the link makes that cheap, in smallest windows. More would save fewer
requests than it adds bytes that nothing reads (measured as in `lazylayer.fetching.locality`)."""


class Link:
    """The speed of one blob's source so far: seconds to the first byte, and bytes per second."""

    def __init__(self) -> None:
        self._latency = 0.0
        self._bandwidth = 0.0

    def observe(self, latency: float, size: int, seconds: float) -> None:
        """Learn from one request: its first byte came after `latency`, then `size` bytes took `seconds`."""
        self._latency = latency if not self._latency else 0.7 * self._latency + 0.3 * latency
        if size >= 64 * 1024 and seconds > 0:
            bandwidth = size / seconds
            self._bandwidth = bandwidth if not self._bandwidth else 0.7 * self._bandwidth + 0.3 * bandwidth

    @property
    def cheap(self) -> int:
        """Bytes that arrive in the time that another request would cost; 0 if unknown."""
        return int(self._latency * self._bandwidth)


class ReadAhead:
    """The windows of the misses of one layer, in bytes; places are member numbers. Not safe for several threads."""

    def __init__(self, smallest: int, largest: int) -> None:
        self.link = Link()
        self._smallest = smallest
        self._largest = max(largest, smallest)
        self._streams: OrderedDict[int, int] = OrderedDict()

    def window(self, member: int) -> tuple[int, bool]:
        """Return how much to fetch for a miss at `member`, and True if it continues a sequential reading."""
        window = self._streams.pop(member, 0)
        if window:
            return min(2 * window, self._largest), True
        cheap = min(self.link.cheap, int(_CHEAPEST * self._smallest), self._largest)
        return max(cheap, self._smallest), False

    def expect(self, member: int, window: int) -> None:
        """Remember that a fetch with `window` ended before `member`."""
        self._streams[member] = window
        self._streams.move_to_end(member)
        if len(self._streams) > STREAMS:
            self._streams.popitem(last=False)


class Window(NamedTuple):
    """The members to fetch for one miss, in blob order."""

    members: list[int]
    size: int
    """In bytes; the next window of the same sequential reader doubles it."""
    limit: int
    """The member that reading ahead ends before; 0 for no sequential reader."""


class Windows:
    """The members that come along with each miss of one layer. Safe to use from any thread.

    `is_here` returns True for a member that need not be fetched.
    """

    def __init__(self, contents: LayerContents, settings: FetchSettings, is_here: Callable[[int], bool]) -> None:
        self.triggers: dict[int, tuple[int, int]] = {}
        """Members that a sequential reader reaches, with the next member to fetch then, and its limit."""
        self._tree = contents.tree
        self._table = contents.chunks
        self._is_here = is_here
        self._lock = threading.Lock()
        self._readahead = ReadAhead(settings.window_min, settings.window_max)
        self._seeking = threading.Lock()
        self._localities: Sequence[Locality] = ()
        self._siblings: Siblings | None = None

    def around(self, member: int, last: int | None) -> Window:
        """Return what to fetch for a miss at `member`; `last` is as in `Fetcher.read`."""
        end = self._table.members
        with self._lock:
            size, sequential = self._readahead.window(member)
        if sequential:
            limit = end if last is None else self._table.member_of(last) + 1
            return Window(self._neighbourhood(member, size, limit), size, limit)
        if self._siblings is None:
            return Window(self._neighbourhood(member, size, end), size, 0)
        return Window(self._siblings.around(member, size, lambda each: not self._is_here(each)), size, 0)

    def ahead(self, following: int, limit: int) -> Window:
        """Return the next window of a sequential reader, which begins at `following`."""
        with self._lock:
            size, _ = self._readahead.window(following)
        return Window(self._neighbourhood(following, size, limit), size, limit)

    def pop_trigger(self, member: int) -> tuple[int, int]:
        """Return where to fetch ahead, and its limit, now that a reader reached `member`; (0, 0) for nowhere."""
        with self._lock:
            return self.triggers.pop(member, (0, 0))

    def expect(self, window: Window, claimed: Sequence[int]) -> None:
        """Remember where the reader of a window will continue, and from where on to fetch ahead of it."""
        following = claimed[-1] + 1
        with self._lock:
            if following < self._table.members:
                self._readahead.expect(following, window.size)
            if following < window.limit:
                self.triggers[claimed[len(claimed) // 2]] = following, window.limit
                while len(self.triggers) > MAX_TRIGGERS:
                    del self.triggers[next(iter(self.triggers))]

    def observe(self, latency: float, size: int, seconds: float) -> None:
        """Learn from one request; see `Link.observe`."""
        with self._lock:
            self._readahead.link.observe(latency, size, seconds)

    def follow(self, localities: Sequence[Locality]) -> None:
        """Take over what policies know of the layer; before its first miss."""
        self._localities = localities

    def find_siblings(self) -> Siblings:
        """Find out what is read together, unless that is known. Costs a microsecond for each file."""
        with self._seeking:
            if self._siblings is None:
                self._siblings = Siblings(self._tree, self._table, self._localities)
            return self._siblings

    def missed(self, member: int) -> None:
        """Tell the policies that follow the file which starts in `member` that a reader had it fetched."""
        followed = self.find_siblings().followed_at(member)
        if followed is None:
            return
        for locality in followed.by:
            try:
                locality.missed(followed.path, followed.entry)
            except Exception as error:  # noqa: BLE001 - the file is there all the same
                logger.debug("following {path!r} failed: {error!r}", path=followed.path, error=error)

    def close(self) -> None:
        """Forget the policies."""
        with self._seeking:
            self._localities = ()
            self._siblings = None

    def _neighbourhood(self, member: int, window: int, limit: int) -> list[int]:
        """Return `member` and the missing members behind it, up to `window` bytes and before `limit`."""
        wanted = [member]
        size = self._table.member_range(member).size
        following = member + 1
        while size < window and following < limit and not self._is_here(following):
            size += self._table.member_range(following).size
            if size <= window:
                wanted.append(following)
            following += 1
        return wanted
