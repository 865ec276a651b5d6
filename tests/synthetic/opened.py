"""A layer in memory that is open for reading, with all that it needs."""

from __future__ import annotations

from lazylayer.api.events import StateEvent
from lazylayer.api.oci import Descriptor, parse_reference
from lazylayer.api.settings import FetchSettings
from lazylayer.fetching.chunkstore import ChunkStore
from lazylayer.fetching.scheduling import Scheduler
from lazylayer.layers.layer import Layer
from lazylayer_testing.synthetic import DictCache, MemorySource, SyntheticLayer, make_blob

__all__ = ["Opened"]


class Opened:
    def __init__(self, made: SyntheticLayer, cache: DictCache | None = None, **options: int) -> None:
        self.made = made
        self.source = MemorySource(made.data, piece=500)
        self.cache = cache or DictCache()
        self.scheduler = Scheduler(silence=0, starvation=1000)
        self.events: list[StateEvent] = []
        self.layer = Layer(
            parse_reference("registry.test/image:1"),
            Descriptor("", made.digest, len(made.data)),
            make_blob(made.data, self.source),
            made.contents,
            ChunkStore(self.cache),
            self.scheduler,
            FetchSettings(window_min=options.get("window_min", 1), window_max=options.get("window_max", 1)),
            self.events.append,
        )

    def read(self, name: bytes, offset: int = 0, size: int = 1 << 20) -> bytes:
        return self.layer.read(self.made.entries[name], offset, size)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]
