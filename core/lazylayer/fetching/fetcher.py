"""Fetch missing chunks and verify them.

Fetching works on members (see `lazylayer.api.chunks`). A member in flight has exactly one `Flight`, shared by
every reader that needs it, so overlapping reads never fetch a member twice. Each request runs in its own
thread and completes flights as bytes arrive: a reader waits for its own chunk, never for chunks fetched
alongside it. The parts of a `Fetcher` lock for themselves; no lock is held while requesting or inflating.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack, closing, suppress
from itertools import takewhile

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.layers import LayerContents
from lazylayer.api.settings import FetchSettings
from lazylayer.errors import LayerError, LazylayerError, UnavailableError, VerificationError
from lazylayer.fetching.blob import Blob
from lazylayer.fetching.chunkstore import ChunkStore
from lazylayer.fetching.flights import Flight, Flights
from lazylayer.fetching.inventory import Inventory
from lazylayer.fetching.scheduling import Scheduler, Turn
from lazylayer.fetching.unpacking import WantedMember, ranges_of, unpack
from lazylayer.fetching.windows import Windows

__all__ = ["Fetcher"]

KEEPING_SECONDS = 10.0
"""Longest wait for a slow cache when a layer is closed."""


class Fetcher:
    """A reader of the chunks of one layer. Safe to use from any thread."""

    def __init__(
        self, blob: Blob, contents: LayerContents, store: ChunkStore, scheduler: Scheduler, settings: FetchSettings
    ) -> None:
        self.blob = blob
        self.inventory = Inventory(blob, contents, store)
        self.windows = Windows(contents, settings, self.inventory.has)
        self._flights = Flights()
        self._table, self._inflate = contents.chunks, contents.inflate
        self._budget, self._scheduler = store.budget, scheduler
        self._settings, self.read_timeout = settings, settings.read_timeout
        self._slots = threading.BoundedSemaphore(settings.threads)
        self._read_here = self.inventory.read
        self._triggers = self.windows.triggers
        self._cursor = 0

    def read(self, chunk: int, offset: int, size: int, deadline: float, last: int | None = None) -> bytes:
        """Return the verified bytes of a chunk from `offset`, at most `size`, fetched if need be.

        `last` is the last chunk of the file when the reader is in the middle of it: then what is fetched along
        for a sequential reader ends with the file. A reader at the start of a file may be going from file to
        file, and gets what follows in the blob. The read ends by `deadline`, in seconds of `time.monotonic`.
        Raises LayerError or ResolveError.
        """
        data = self._read_here(chunk, offset, size)
        if data is None:
            with self._scheduler.foreground():
                return self._fetch_chunk(chunk, offset, size, deadline, last)
        if self._triggers:
            self._maybe_read_ahead(self._table.member_of(chunk))
        return data

    def prefetch(self, byte_range: ByteRange) -> None:
        """Fetch every missing member that lies whole in `byte_range`, in as few requests as possible."""
        members = range(self._table.member_at(byte_range.start), self._table.members)
        self._fetch_members(takewhile(lambda each: self._table.member_range(each).end <= byte_range.end, members))

    def fetch(self, chunks: Iterable[int]) -> None:
        """Fetch the missing members of these chunks in as few requests as possible."""
        self._fetch_members(sorted({self._table.member_of(chunk) for chunk in chunks}))

    def fetch_some(self, turn: Turn, request_size: int) -> bool:
        """Fetch the next missing members in blob order, about `request_size` bytes; return True if there are more.

        Stops early, keeping whole members, when `turn` says so. Raises like `read`.
        """
        wanted: list[int] = []
        size = 0
        start, end = self._cursor, self._table.members
        while self._cursor < end and size < request_size and not turn.should_yield():
            if not self.inventory.has(self._cursor):
                wanted.append(self._cursor)
                size += self._table.member_range(self._cursor).size
            self._cursor += 1
        try:
            done = self._carry_out(self._flights.claim(wanted), turn)
        except LazylayerError:
            self._cursor = start
            raise
        complete = self.inventory.complete
        if not done:
            self._cursor = start
        elif self._cursor == end and not complete and start > 0:
            self._cursor = 0
        return not complete and (not done or self._cursor < end)

    def finish(self) -> None:
        """Forget policies and callbacks, and wait until all that readers got is cached."""
        self.windows.close()
        self.inventory.close()
        self._flights.wait_landed(KEEPING_SECONDS)

    def _fetch_members(self, members: Iterable[int]) -> None:
        with self._scheduler.foreground():
            self._carry_out(self._flights.claim([member for member in members if not self.inventory.has(member)]))

    def _fetch_chunk(self, chunk: int, offset: int, size: int, deadline: float, last: int | None) -> bytes:
        member = self._table.member_of(chunk)
        while True:
            flight = self._flights.of(member)
            if flight is None and self.inventory.holds(member):  # it landed meanwhile
                data = self._read_here(chunk, offset, size)
                if data is not None:
                    return data
            if flight is None:
                flight = self._take_off(member, last)
            if flight is not None:
                if not flight.wait(self._settings.stall_timeout, deadline):
                    raise self._too_slow(deadline)
                if not flight.abandoned:
                    return flight.result(chunk)[offset : offset + size]

    def _too_slow(self, deadline: float) -> UnavailableError:
        settings = self._settings
        if time.monotonic() >= deadline:
            why = f"a read took longer than {settings.read_timeout:g} s (fetch.read_timeout)"
        else:
            why = f"no bytes arrived for {settings.stall_timeout:g} s (fetch.stall_timeout)"
        source = self.blob.describe() or "the registry, which did not answer yet"
        return UnavailableError(f"layer {self.blob.digest}: {why} from {source}")

    def _take_off(self, member: int, last: int | None) -> Flight | None:
        """Start to fetch a member and its neighbourhood; return None if another reader just did."""
        self.inventory.discard(member)
        window = self.windows.around(member, last)
        claimed = self._flights.claim(window.members, needed=member)
        if not claimed:
            return None
        self.windows.expect(window, list(claimed))
        flight = claimed[member]
        self._start(claimed, member)
        return flight

    def _maybe_read_ahead(self, member: int) -> None:
        """Fetch the next window of a sequential reader before it gets there."""
        following, limit = self.windows.pop_trigger(member)
        if following >= limit or self._flights.of(following) is not None or self.inventory.has(following):
            return
        window = self.windows.ahead(following, limit)
        claimed = self._flights.claim(window.members)
        if claimed:
            self.windows.expect(window, list(claimed))
            self._start(claimed)

    def _start(self, claimed: dict[int, Flight], missed: int | None = None) -> None:
        thread = threading.Thread(target=self._run, args=(claimed, missed), name="lazylayer-fetch", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._flights.fail(claimed, LayerError(f"no thread to fetch with: {error}"))

    def _run(self, claimed: dict[int, Flight], missed: int | None) -> None:
        done = False
        # An error is not lost: every flight carries it to its readers.
        with self._slots, self._scheduler.foreground(), suppress(LazylayerError):
            done = self._carry_out(claimed, needed=missed)
        if done and missed is not None:
            self.windows.missed(missed)

    def _carry_out(self, claimed: dict[int, Flight], turn: Turn | None = None, needed: int | None = None) -> bool:
        """Fetch claimed members; return True if all of them came. Raises what went wrong. `needed`: see `_receive`."""
        if not claimed:
            return True
        wrong: dict[int, Flight] = {}
        try:
            done = self._receive(claimed, turn, wrong, needed)
            if wrong and self.blob.doubt(next(iter(wrong.values())).failure()):
                claimed.update(wrong)
                wrong.clear()
                if done:  # else their readers ask for them again
                    self._receive(claimed, None, wrong)
            return done
        except LazylayerError as error:
            self._flights.fail(claimed, error)
            raise
        except Exception as error:
            failure = LayerError(f"layer {self.blob.digest}: {type(error).__name__}: {error}")
            self._flights.fail(claimed, failure)
            raise failure from error
        finally:
            for member, flight in wrong.items():
                self._arrive(member, flight)
            self._flights.abandon(claimed)

    def _receive(
        self, claimed: dict[int, Flight], turn: Turn | None, wrong: dict[int, Flight], needed: int | None = None
    ) -> bool:
        """Fetch members and serve their readers; put those that fail verification into `wrong`.

        Takes members that came out of `claimed`, so that their bytes are held no longer. Returns False if
        `turn` ended it. A reader waits for the member `needed`: those that arrive before it are unpacked after it.
        """
        ready: list[tuple[WantedMember, bytearray]] = []
        members = [WantedMember.of(self._table, number) for number in claimed]
        progress = next(iter(claimed.values())).progress
        started = first = landed = progress.at = time.monotonic()
        received = 0
        waiting = iter(members)
        member: WantedMember | None = next(waiting)
        buffer = bytearray()
        with ExitStack() as ending:
            ending.callback(self._take_in, ready, claimed, wrong)  # what came before an error is good
            pieces = ending.enter_context(closing(self.blob.stream(ranges_of(members))))
            for at, piece in pieces:
                if not received:
                    first = time.monotonic()
                received += len(piece)
                progress.at = time.monotonic()
                if progress.at > landed + self.read_timeout:
                    raise self._too_slow(landed)  # its readers gave up; the next ones ask again
                end = at + len(piece)
                while member is not None and member.start < end:
                    buffer += memoryview(piece)[max(member.start - at, 0) : member.end - at]
                    if member.end > end:
                        break
                    ready.append((member, buffer))
                    if needed in (None, member.number):
                        needed = None
                        self._take_in(ready, claimed, wrong)
                    buffer = bytearray()
                    member, landed = next(waiting, None), progress.at
                if turn is not None and member is not None and turn.should_yield():
                    return False
        self.windows.observe(first - started, received, time.monotonic() - first)
        return True

    def _take_in(
        self, ready: list[tuple[WantedMember, bytearray]], claimed: dict[int, Flight], wrong: dict[int, Flight]
    ) -> None:
        """Unpack members whose bytes are here, the last one first, and serve their readers."""
        while ready:
            member, data = ready.pop()
            flight = claimed[member.number]
            with self._budget.use(member.need):
                if self._unpack(member, data, flight):
                    self._arrive(member.number, flight)
                else:
                    wrong[member.number] = flight
                del claimed[member.number], flight
            self.inventory.announce()

    def _unpack(self, member: WantedMember, data: bytearray, flight: Flight) -> bool:
        """Inflate and verify a member; return True if every chunk is good."""
        flight.error, flight.chunks = None, {}
        try:
            plain, flight.chunks = unpack(self.blob.digest, self._table, member, data, self._inflate)
            flight.sealed = (bytes(data), plain) if self._table.seal_of(member.number) else None
        except VerificationError as error:
            flight.error = error
        return flight.is_good

    def _arrive(self, member: int, flight: Flight) -> None:
        """Wake the readers of a member that came, then keep its chunks."""
        flight.done.set()
        if flight.sealed:
            self.inventory.keep_sealed(member, *flight.sealed)
        for chunk, result in flight.chunks.items() if not flight.sealed else ():
            if not isinstance(result, LazylayerError):
                self.inventory.keep(chunk, result)
        if flight.is_good:
            self.inventory.add(member)  # before the landing: a reader that finds no flight looks here
        self._flights.land(member, flight)
