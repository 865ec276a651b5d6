"""Members in flight, and the readers that wait for them.

The lock is that of `Flights._changed`, a condition; nothing is done while holding it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from lazylayer.errors import LazylayerError

__all__ = ["Flight", "Flights"]


class Progress:
    """When the last bytes of a request arrived, in seconds of `time.monotonic`; at first, when it was planned."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = time.monotonic()


class Flight:
    """One member in flight. Readers `wait` for it, then look at the rest. Its request shares `progress`."""

    __slots__ = ("abandoned", "chunks", "done", "error", "progress", "sealed")

    def __init__(self, progress: Progress) -> None:
        self.done = threading.Event()
        self.progress = progress
        self.chunks: dict[int, bytes | LazylayerError] = {}
        self.sealed: tuple[bytes, bytes] | None = None  # compressed and inflated, of a member with a seal
        self.error: LazylayerError | None = None
        self.abandoned = False

    @property
    def is_good(self) -> bool:
        """True if every chunk is what the table of contents promises."""
        return self.error is None and not any(isinstance(each, LazylayerError) for each in self.chunks.values())

    def wait(self, stall_timeout: float, deadline: float) -> bool:
        """Wait for `done`; return False after `stall_timeout` seconds without a byte, or past `deadline`."""
        begun = time.monotonic()
        while not self.done.is_set():
            limit = min(max(begun, self.progress.at) + stall_timeout, deadline)
            left = limit - time.monotonic()
            if left <= 0:
                return False
            self.done.wait(left)
        return True

    def failure(self) -> LazylayerError:
        """Return the error of a flight that is not good."""
        wrong = [each for each in self.chunks.values() if isinstance(each, LazylayerError)]
        return self.error or wrong[0]

    def result(self, chunk: int) -> bytes:
        """Return a chunk of a flight that was not abandoned; raise what is wrong with it."""
        result = self.error or self.chunks[chunk]
        if isinstance(result, LazylayerError):
            raise result
        return result


class Flights:
    """The members of one layer in flight, at most one flight for each. Safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._flights: dict[int, Flight] = {}

    def of(self, member: int) -> Flight | None:
        """Return the flight of a member, or None."""
        return self._flights.get(member)

    def claim(self, members: Sequence[int], needed: int | None = None) -> dict[int, Flight]:
        """Make flights for the members that are not in flight, and return these; the caller ends them.

        If `needed`, a member, is in flight, nothing is claimed.
        """
        with self._changed:
            if needed in self._flights:
                return {}
            progress = Progress()
            claimed = {member: Flight(progress) for member in members if member not in self._flights}
            self._flights.update(claimed)
            return claimed

    def land(self, member: int, flight: Flight) -> None:
        """Forget a flight whose readers were woken and whose chunks were kept."""
        with self._changed:
            if self._flights.get(member) is flight:
                del self._flights[member]
            self._changed.notify_all()

    def fail(self, claimed: dict[int, Flight], error: LazylayerError) -> None:
        """End the unfinished ones of these flights; their readers get the error."""
        for flight in self._take_back(claimed):
            flight.error = error
            flight.done.set()

    def abandon(self, claimed: dict[int, Flight]) -> None:
        """End the unfinished ones of these flights; their readers fetch for themselves."""
        for flight in self._take_back(claimed):
            flight.abandoned = True
            flight.done.set()

    def wait_landed(self, timeout: float) -> None:
        """Wait, at most `timeout` seconds, until the chunks that readers got are kept as well."""
        with self._changed:
            self._changed.wait_for(lambda: not any(each.done.is_set() for each in self._flights.values()), timeout)

    def _take_back(self, claimed: dict[int, Flight]) -> list[Flight]:
        with self._changed:
            unfinished = {member: flight for member, flight in claimed.items() if not flight.done.is_set()}
            for member, flight in unfinished.items():
                if self._flights.get(member) is flight:
                    del self._flights[member]
            return list(unfinished.values())
