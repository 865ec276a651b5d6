"""A layer in memory that is open for reading, with all that it needs."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lazylayer import hookimpl
from lazylayer.api.byteranges import ByteRange
from lazylayer.api.events import StateEvent
from lazylayer.api.layers import PrefetchPlan
from lazylayer.api.oci import Descriptor, parse_reference
from lazylayer.api.settings import BackgroundSettings, FetchSettings, Settings
from lazylayer.fetching.blob import Blob
from lazylayer.fetching.chunkstore import ChunkStore
from lazylayer.fetching.fetcher import Fetcher
from lazylayer.fetching.scheduling import Scheduler
from lazylayer.layers.layer import Layer
from lazylayer.layers.prefetcher import Prefetcher
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager
from lazylayer_testing.synthetic import DictCache, MemorySource, SyntheticLayer

__all__ = ["Opened"]


class Opened:
    def __init__(
        self, made: SyntheticLayer, cache: DictCache | None = None, store: ChunkStore | None = None, **options: float
    ) -> None:
        self.made = made
        self.source = MemorySource(made.data, piece=500)
        self.cache = cache or DictCache()
        self.scheduler = Scheduler(silence=0, starvation=1000)
        self.events: list[StateEvent] = []
        self.store = store or ChunkStore(self.cache)
        descriptor = Descriptor("", made.digest, len(made.data))
        settings = msgspec.convert({"window_min": 1, "window_max": 1, **options}, FetchSettings)
        blob = Blob(lambda: self.source, descriptor.digest, descriptor.size)
        fetcher = Fetcher(blob, made.contents, self.store, self.scheduler, settings)
        reference = parse_reference("registry.test/image:1")
        self.layer = Layer(reference, descriptor, made.contents, fetcher, self.events.append)

        manager = make_manager()
        manager.register(self, "policy")
        self.plan: Callable[[], PrefetchPlan | None] = lambda: None
        self.prefetcher = Prefetcher(
            Settings(background=BackgroundSettings(enabled=False)), Hooks(manager), self.scheduler
        )

    @hookimpl
    def lazylayer_plan_prefetch(self) -> PrefetchPlan | None:
        return self.plan()

    def prefetch(self, *ranges: tuple[int, int]) -> None:
        """Prefetch ranges of the blob, and return when that is done."""
        self.plan = lambda: PrefetchPlan(tuple(ByteRange(*each) for each in ranges))
        self.prefetcher.layer(self.layer, {})
        assert self.prefetcher.wait(self.layer, 20)

    def read(self, name: bytes, offset: int = 0, size: int = 1 << 20) -> bytes:
        return self.layer.read(self.made.entries[name], offset, size)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]
