"""From a missing chunk to verified bytes: which members to fetch together, who waits for whom.

The unit of fetching is a member (see `lazylayer.api.chunks`). Each member that is on its way has one
`Flight`; whoever needs it waits for that, so no member is fetched twice at the same time, however
the requests overlap. A request runs in a thread of its own and completes flights one by one as
bytes arrive: a reader waits for its own chunk, not for the neighbours that were fetched along.

The lock is `Fetcher._lock` (also as the condition `_kept`); no request is made, and nothing inflated, while it is held.
`Fetcher._seeking` is held, by threads that have served their readers already, while siblings are sought.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.layers import LayerContents
from lazylayer.api.settings import FetchSettings
from lazylayer.api.tree import Entry
from lazylayer.errors import LayerError, LazylayerError, VerificationError
from lazylayer.fetching.blob import Blob
from lazylayer.fetching.chunkstore import ChunkStore
from lazylayer.fetching.flights import Flight
from lazylayer.fetching.locality import Siblings
from lazylayer.fetching.scheduling import Scheduler, Turn
from lazylayer.fetching.unpacking import WantedMember, ranges_of, unpack
from lazylayer.fetching.windows import ReadAhead

__all__ = ["Fetcher"]

MAX_TRIGGERS = 16
"""Sequential readers of one layer for whom is fetched ahead at the same time."""


KEEPING_SECONDS = 10.0
"""How long the end of a layer waits for a slow cache."""


class Fetcher:
    """Reads the chunks of one layer. Safe to use from any thread.

    `on_complete` is called once, from the thread that fetched the last member; `on_program` for each
    program of which a reader had the start fetched, from the thread that did so; `seek_siblings` once, when
    the first miss was served.
    """

    def __init__(
        self,
        blob: Blob,
        contents: LayerContents,
        store: ChunkStore,
        scheduler: Scheduler,
        settings: FetchSettings,
        on_complete: Callable[[], None],
        on_program: Callable[[bytes, Entry], None],
        seek_siblings: Callable[[], Siblings],
    ) -> None:
        self._blob = blob
        self._table = contents.chunks
        self._inflate = contents.inflate
        self._store = store
        self._scheduler = scheduler
        self._on_complete = on_complete
        self._on_program = on_program
        self._seek_siblings = seek_siblings
        self._seeking = threading.Lock()
        self._slots = threading.BoundedSemaphore(settings.threads)
        self._lock = threading.Lock()
        self._kept = threading.Condition(self._lock)
        self._keeping = 0
        self._flights: dict[int, Flight] = {}
        self._readahead = ReadAhead(settings.window_min, settings.window_max)
        self._siblings: Siblings | None = None
        self._triggers: dict[int, tuple[int, int]] = {}
        self._held = bytearray(self._table.members)
        self._held_count = 0
        self._cursor = 0

    @property
    def complete(self) -> bool:
        """Whether every member was seen here: fetched, or found in the cache."""
        return self._held_count == len(self._held)

    @property
    def held_bytes(self) -> int:
        """Bytes of chunks, inflated, that were seen here."""
        table = self._table
        return sum(
            table.place(chunk)[1] for member, held in enumerate(self._held) if held for chunk in table.chunks_of(member)
        )

    def key(self, chunk: int) -> str:
        """The name of a chunk in the store."""
        digest = self._table.digest(chunk)
        return f"sha256:{digest.hex()}" if digest else f"{self._blob.digest}:chunk{chunk}"

    def read(self, chunk: int, offset: int, size: int, last: int | None = None) -> bytes:
        """The bytes of a chunk from `offset`, at most `size`, verified; fetched if need be.

        `last` is the last chunk of the file when the reader is in the middle of it: what is fetched
        along for a sequential reader ends with the file then. A reader at the start of a file may
        be going from file to file, and gets what follows in the blob.

        Raises LayerError or ResolveError.
        """
        data = self._store.read(self.key(chunk), self._table.digest(chunk), offset, size)
        if data is None:
            with self._scheduler.foreground():
                return self._fetch_chunk(chunk, offset, size, last)
        if self._triggers:
            self._maybe_read_ahead(self._table.member_of(chunk))
        return data

    def siblings(self) -> Siblings:
        """What is read together; from then on that is fetched along with a miss, and not what follows in the blob."""
        with self._seeking:
            if self._siblings is None:
                self._siblings = self._seek_siblings()
            return self._siblings

    def prefetch(self, byte_range: ByteRange) -> None:
        """Fetches every member that lies whole in `byte_range`, with one request where none is here."""
        table = self._table
        wanted = []
        for member in range(table.member_at(byte_range.start), table.members):
            place = table.member_range(member)
            if place.end > byte_range.end:
                break
            wanted.append(member)
        self._fetch_members(wanted)

    def fetch(self, chunks: Iterable[int]) -> None:
        """Fetches the members of these chunks that are not here, with one request."""
        self._fetch_members(sorted({self._table.member_of(chunk) for chunk in chunks}))

    def fetch_some(self, turn: Turn, request_size: int) -> bool:
        """Fetches the next missing members in blob order, about `request_size` bytes of them.

        Returns whether there is more to do. Stops early, keeping whole members, when `turn` says.
        Raises like `read`.
        """
        wanted: list[int] = []
        size = 0
        start = self._cursor
        while self._cursor < len(self._held) and size < request_size and not turn.should_yield():
            if not self._is_here(self._cursor):
                wanted.append(self._cursor)
                size += self._table.member_range(self._cursor).size
            self._cursor += 1
        try:
            done = self._carry_out(self._claim(wanted), turn)
        except LazylayerError:
            self._cursor = start
            raise
        if not done:
            self._cursor = start
        elif self._cursor == len(self._held) and not self.complete and start > 0:
            self._cursor = 0
        return not self.complete and (not done or self._cursor < len(self._held))

    def finish(self) -> None:
        """Waits until all that readers got is in the cache as well; what is still on its way is not."""
        with self._kept:
            self._kept.wait_for(lambda: not self._keeping, KEEPING_SECONDS)

    def _fetch_members(self, members: Sequence[int]) -> None:
        with self._scheduler.foreground():
            self._carry_out(self._claim([member for member in members if not self._is_here(member)]))

    # --- one chunk ---------------------------------------------------------------------------

    def _fetch_chunk(self, chunk: int, offset: int, size: int, last: int | None) -> bytes:
        member = self._table.member_of(chunk)
        while True:
            with self._lock:
                flight = self._flights.get(member)
                arrived = flight is None and self._held[member]
            if arrived:
                data = self._store.read(self.key(chunk), self._table.digest(chunk), offset, size)
                if data is not None:
                    return data
            if flight is None:
                flight = self._take_off(member, last)
            flight.done.wait()
            if flight.abandoned:
                continue
            result = flight.error or flight.chunks[chunk]
            if isinstance(result, LazylayerError):
                raise result
            return result[offset : offset + size]

    def _take_off(self, member: int, last: int | None) -> Flight:
        """Starts to fetch a member and its neighbourhood, unless somebody else just did."""
        with self._lock:
            self._mark_missing(member)
            window, sequential = self._readahead.window(member)
        limit = self._limit(last)
        if sequential or self._siblings is None:
            wanted = self._neighbourhood(member, window, limit if sequential else len(self._held))
        else:
            wanted = self._siblings.around(member, window, lambda sibling: not self._is_here(sibling))
        with self._lock:
            flight = self._flights.get(member)
            if flight is not None:
                return flight
            claimed = self._claim_locked(wanted)
            self._plan_ahead(list(claimed), window, limit if sequential else 0)
        self._start(claimed, member)
        return claimed[member]

    def _limit(self, last: int | None) -> int:
        """The member that a sequential reader's window ends before."""
        return len(self._held) if last is None else self._table.member_of(last) + 1

    def _neighbourhood(self, member: int, window: int, limit: int) -> list[int]:
        """`member` and those behind it that are missing, up to `window` bytes and before `limit`."""
        wanted = [member]
        size = self._table.member_range(member).size
        following = member + 1
        while size < window and following < limit and not self._is_here(following):
            size += self._table.member_range(following).size
            if size <= window:
                wanted.append(following)
            following += 1
        return wanted

    def _plan_ahead(self, claimed: list[int], window: int, limit: int) -> None:
        """Remembers where the reader will go on, and from where on to fetch ahead of it."""
        following = claimed[-1] + 1
        if following < len(self._held):
            self._readahead.expect(following, window)
        if following < limit:
            self._triggers[claimed[len(claimed) // 2]] = following, limit
            while len(self._triggers) > MAX_TRIGGERS:
                del self._triggers[next(iter(self._triggers))]

    def _maybe_read_ahead(self, member: int) -> None:
        """Fetches the next window of a sequential reader before it gets there."""
        with self._lock:
            following, limit = self._triggers.pop(member, (0, 0))
            if following >= limit or following in self._flights:
                return
        if self._is_here(following):
            return
        with self._lock:
            window, _ = self._readahead.window(following)
        wanted = self._neighbourhood(following, window, limit)
        with self._lock:
            claimed = self._claim_locked(wanted)
            if claimed:
                self._plan_ahead(list(claimed), window, limit)
        if claimed:
            self._start(claimed)

    # --- what is here --------------------------------------------------------------------------

    def _is_here(self, member: int) -> bool:
        if self._held[member]:
            return True
        digest = self._table.digest
        if not all(self._store.has(self.key(chunk), digest(chunk)) for chunk in self._table.chunks_of(member)):
            return False
        self._blob.mark_present(*self._table.member_range(member))
        with self._lock:
            completed = self._mark_held(member)
        if completed:
            self._on_complete()
        return True

    def _mark_held(self, member: int) -> bool:
        """Notes, with the lock held, that a member is here; whether it was the last one."""
        if self._held[member]:
            return False
        self._held[member] = 1
        self._held_count += 1
        return self.complete

    def _mark_missing(self, member: int) -> None:
        if self._held[member]:
            self._held[member] = 0
            self._held_count -= 1

    # --- requests --------------------------------------------------------------------------------

    def _claim(self, members: Sequence[int]) -> dict[int, Flight]:
        with self._lock:
            return self._claim_locked(members)

    def _claim_locked(self, members: Sequence[int]) -> dict[int, Flight]:
        """Makes flights for those members that nobody fetches yet, and returns these.

        Who claims a flight ends it, and no other: a member that is missing again, because the cache
        let go of it, may have a new flight while the one who fetched it before is still at work.
        """
        claimed = {member: Flight() for member in members if member not in self._flights}
        self._flights.update(claimed)
        return claimed

    def _start(self, claimed: dict[int, Flight], missed: int | None = None) -> None:
        arguments = (dict(claimed), missed)
        thread = threading.Thread(target=self._run, args=arguments, name="lazylayer-fetch", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._fail(claimed, LayerError(f"no thread to fetch with: {error}"))

    def _run(self, claimed: dict[int, Flight], missed: int | None) -> None:
        done = False
        try:
            # An error is not lost: every flight carries it to whoever waits.
            with self._slots, self._scheduler.foreground(), suppress(LazylayerError):
                done = self._carry_out(claimed)
        finally:
            self._abandon(claimed)
        program = self.siblings().program_at(missed) if done and missed is not None else None
        if program is not None:
            self._on_program(*program)

    def _carry_out(self, claimed: dict[int, Flight], turn: Turn | None = None) -> bool:
        """Fetches claimed members; returns whether all of them came. Raises what went wrong."""
        if not claimed:
            return True
        wrong: dict[int, Flight] = {}
        try:
            done = self._receive(claimed, turn, wrong)
            if wrong and self._blob.doubt(next(iter(wrong.values())).failure()):
                claimed.update(wrong)
                wrong.clear()
                if done:  # else whoever needs them asks for them again
                    self._receive(claimed, None, wrong)
            return done
        except LazylayerError as error:
            self._fail(claimed, error)
            raise
        except Exception as error:
            failure = LayerError(f"layer {self._blob.digest}: {type(error).__name__}: {error}")
            self._fail(claimed, failure)
            raise failure from error
        finally:
            for member, flight in wrong.items():
                self._arrive(member, flight)
            self._abandon(claimed)

    def _receive(self, claimed: dict[int, Flight], turn: Turn | None, wrong: dict[int, Flight]) -> bool:
        """Fetches members and has their readers served; those that are not what they should be get into `wrong`.

        What has come is taken out of `claimed`, so that its bytes are not held here any longer.
        """
        members = [WantedMember.of(self._table, number) for number in claimed]
        started = first = time.monotonic()
        received = 0
        waiting = iter(members)
        member: WantedMember | None = next(waiting)
        buffer = bytearray()
        with closing(self._blob.stream(ranges_of(members))) as pieces:
            for at, piece in pieces:
                if not received:
                    first = time.monotonic()
                received += len(piece)
                end = at + len(piece)
                while member is not None and member.start < end:
                    buffer += memoryview(piece)[max(member.start - at, 0) : member.end - at]
                    if member.end > end:
                        break
                    flight = claimed[member.number]
                    if self._unpack(member, buffer, flight):
                        self._arrive(member.number, flight)
                    else:
                        wrong[member.number] = flight
                    del claimed[member.number], flight
                    buffer = bytearray()
                    member = next(waiting, None)
                if turn is not None and member is not None and turn.should_yield():
                    return False
        with self._lock:
            self._readahead.link.observe(first - started, received, time.monotonic() - first)
        return True

    def _unpack(self, member: WantedMember, data: bytearray, flight: Flight) -> bool:
        """Inflates and verifies a member; whether all of it is what it should be."""
        flight.error, flight.chunks = None, {}
        try:
            flight.chunks = unpack(self._blob.digest, self._table, member, data, self._inflate)
        except VerificationError as error:
            flight.error = error
        return flight.is_good

    def _arrive(self, member: int, flight: Flight) -> None:
        """Wakes the readers of a member that came, then keeps its chunks."""
        with self._lock:
            self._keeping += 1
        flight.done.set()
        for chunk, result in flight.chunks.items():
            if not isinstance(result, LazylayerError):
                self._store.keep(self.key(chunk), result)
        with self._lock:
            self._keeping -= 1
            self._kept.notify_all()
            # In one step, so that a reader who finds no flight any more knows to look in the store.
            self._land(member, flight)
            completed = flight.is_good and self._mark_held(member)
        if completed:
            self._on_complete()

    def _fail(self, claimed: dict[int, Flight], error: LazylayerError) -> None:
        for flight in self._take_back(claimed):
            flight.error = error
            flight.done.set()

    def _abandon(self, claimed: dict[int, Flight]) -> None:
        for flight in self._take_back(claimed):
            flight.abandoned = True
            flight.done.set()

    def _take_back(self, claimed: dict[int, Flight]) -> list[Flight]:
        with self._lock:
            unfinished = {member: flight for member, flight in claimed.items() if not flight.done.is_set()}
            for member, flight in unfinished.items():
                self._land(member, flight)
            return list(unfinished.values())

    def _land(self, member: int, flight: Flight) -> None:
        """Forgets a flight, with the lock held, unless another one of that member took off."""
        if self._flights.get(member) is flight:
            del self._flights[member]
