"""Layers are opened once, shared, and let go."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.layers import PrefetchPlan
from lazylayer.api.settings import BackgroundSettings, ResolveSettings, Settings
from lazylayer.errors import FormatError, UnavailableError
from lazylayer.layers.layer import Layer
from lazylayer.layers.store import LayerStore, Lease
from lazylayer_testing.synthetic import REFERENCE, MemoryPlugin, SyntheticLayer, SyntheticProgram


class Store:
    def __init__(self, count: int = 3, settings: Settings | None = None) -> None:
        self.plugin = MemoryPlugin([SyntheticLayer({b"f": random.Random(n).randbytes(3000)}) for n in range(count)])
        program = SyntheticProgram(self.plugin, settings)
        self.store = LayerStore(program.settings, program.hooks)
        self.descriptors = self.plugin.descriptors()

    def lend(self, number: int = 0) -> Lease:
        return self.store.lend(REFERENCE, self.descriptors[number])

    def asked(self, what: str) -> int:
        return sum(each.startswith(what) for each in self.plugin.asked)

    def events(self, kind: str) -> int:
        return sum(event.kind == kind for event in self.plugin.events)


@pytest.mark.seed(4)
def test_a_layer_is_opened_once_for_all_who_ask() -> None:
    store = Store()
    barrier = threading.Barrier(8)

    def lend(_: int) -> Layer:
        barrier.wait(20)
        return store.lend().layer

    with ThreadPoolExecutor(8) as threads:
        layers = set(threads.map(lend, range(8)))
    assert len(layers) == 1
    assert (store.asked("open_layer"), store.asked("resolve_blob"), store.events("resolved")) == (1, 1, 1)
    store.store.close()


@pytest.mark.seed(4)
def test_a_failed_opening_is_told_to_all_and_tried_again() -> None:
    store = Store()
    failing = threading.Event()
    failing.set()

    def fail(_: str) -> None:
        if failing.is_set():
            raise FormatError("its table is torn")

    store.plugin.before_open = fail
    with pytest.raises(FormatError, match="torn"):
        store.lend()
    assert store.events("failed") == 1
    failing.clear()
    assert store.lend().layer.digest == store.descriptors[0].digest
    store.store.close()


HOSTILE = "\x1b[2Jhijacked\nline two, password=hunter2, https://ann:hunter2@registry.test/?sig=hunter2"


def test_an_error_from_outside_is_reported_as_one_clean_line() -> None:
    store = Store()

    def fail(_: str) -> None:
        raise FormatError(HOSTILE)

    store.plugin.before_open = fail
    with pytest.raises(FormatError):
        store.lend()
    while not store.events("failed"):
        threading.Event().wait(0.001)
    (error,) = [event.error for event in store.plugin.events if event.kind == "failed"]
    assert error.isprintable()
    assert "hunter2" not in error
    assert "hijacked" in error
    store.store.close()


def test_the_last_error_of_a_layer_is_kept_as_one_clean_line() -> None:
    store = Store()
    layer = store.lend().layer
    layer.fail(HOSTILE)
    reported = [event.error for event in store.plugin.events if event.kind == "failed"]
    for error in (layer.state().error, *reported):
        assert error.isprintable()
        assert "hunter2" not in error
        assert "hijacked" in error
    assert len(reported) == 1
    store.store.close()


def test_what_a_plugin_raises_by_mistake_is_a_layer_error_with_its_name() -> None:
    store = Store()

    def fail(_: str) -> None:
        raise ZeroDivisionError("oops")

    store.plugin.before_open = fail
    with pytest.raises(Exception, match=r"memory.*oops") as caught:
        store.lend()
    assert not isinstance(caught.value, ZeroDivisionError)
    store.store.close()


@pytest.mark.seed(4)
def test_an_opening_that_takes_too_long_is_an_error_now_and_ready_later() -> None:
    store = Store(settings=Settings(resolve=ResolveSettings(timeout=0.01)))
    gate = threading.Event()
    opened = threading.Event()

    def wait(_: str) -> None:
        gate.wait(20)
        opened.set()

    store.plugin.before_open = wait
    with pytest.raises(UnavailableError, match=r"timed out after 0\.01 s \(resolve\.timeout\)"):
        store.lend()
    gate.set()
    assert opened.wait(20)
    while not store.events("resolved"):
        gate.wait(0.001)
    assert store.lend().layer.digest == store.descriptors[0].digest
    assert store.asked("open_layer") == 1
    store.store.close()


@pytest.mark.seed(4)
def test_unused_layers_are_kept_up_to_a_number_and_the_oldest_leaves() -> None:
    store = Store(settings=Settings(resolve=ResolveSettings(keep=2)))
    leases = [store.lend(number) for number in range(3)]
    for lease in leases:
        lease.close()
    assert store.events("closed") == 1
    assert [source.closed for source in store.plugin.sources.values()] == [True, False, False]
    assert store.lend(2).layer is leases[2].layer
    assert store.lend(0).layer is not leases[0].layer
    assert store.asked("open_layer") == 4
    store.store.close()


def test_a_layer_in_use_is_never_closed() -> None:
    store = Store(settings=Settings(resolve=ResolveSettings(keep=0)))
    lease = store.lend()
    with store.lend() as again:
        lease.close()
        assert store.events("closed") == 0
        lease.close()
        assert store.events("closed") == 0, "closed twice, returned once"
        assert again.layer is lease.layer
    assert store.events("closed") == 1
    again.close()
    store.store.close()


def test_a_bad_table_in_the_cache_is_fetched_again() -> None:
    store = Store()
    footer = store.plugin.layers[store.descriptors[0].digest].data[-8:]
    store.lend()
    store.store.close()
    ranges = store.plugin.caches["ranges"].values
    ranges.update({key: bytes(len(value)) for key, value in ranges.items() if value == footer})

    store.plugin.verify = lambda tail: None if tail == footer else FormatError("torn")
    program = SyntheticProgram(store.plugin)
    second = LayerStore(program.settings, program.hooks)
    assert second.lend(REFERENCE, store.descriptors[0]).layer.tree.lookup(b"f")
    assert store.asked("open_layer") == 3, "once at first; then with the bad bytes, and with fetched ones"
    assert footer in ranges.values()
    second.close()


@pytest.mark.seed(7)
def test_a_layer_is_fetched_in_the_background_until_it_is_whole() -> None:
    store = Store(settings=Settings(background=BackgroundSettings(silence=0, request_size=1024)))
    layer = store.lend().layer
    store.store.prefetcher.layer(layer, {})
    store.store.prefetcher.layer(layer, {})
    whole = threading.Event()
    while not whole.wait(0.01):
        if store.events("completed"):
            whole.set()
    assert layer.complete
    assert store.events("completed") == 1
    store.store.close()


@pytest.mark.seed(7)
def test_background_fetching_can_be_switched_off() -> None:
    store = Store(settings=Settings(background=BackgroundSettings(enabled=False)))
    layer = store.lend().layer
    store.store.prefetcher.layer(layer, {})
    assert store.store.prefetcher.wait(layer, 20)
    store.store.close()
    assert layer.state().fetched == 8


class TestEviction:
    """A layer that is evicted before its prefetch ended."""

    def evict(self, prefetched: Callable[[Store], PrefetchPlan]) -> tuple[Store, weakref.ref[Layer]]:
        """Evicts a layer while its prefetch is planned; returns when all that was started for it has ended."""
        store = Store(
            settings=Settings(
                resolve=ResolveSettings(keep=0), background=BackgroundSettings(silence=0, request_size=1024)
            )
        )
        planning, evicted = threading.Event(), threading.Event()

        def plan(_: object) -> PrefetchPlan:
            planning.set()
            assert evicted.wait(20)
            return prefetched(store)

        store.plugin.plan = plan
        with store.lend() as lease:
            store.store.prefetcher.layer(lease.layer, {})
            alive = weakref.ref(lease.layer)
            assert planning.wait(20)
        del lease
        assert store.events("closed") == 1
        evicted.set()
        pause = threading.Event()
        while [each for each in threading.enumerate() if each.name == "lazylayer-prefetch"]:
            pause.wait(0.005)
        return store, alive

    def asked_bytes(self, store: Store) -> int:
        return sum(source.asked_bytes for source in store.plugin.sources.values())

    def test_is_not_fetched_any_more(self) -> None:
        store, _ = self.evict(lambda store: PrefetchPlan((ByteRange(0, 2000),)))
        threading.Event().wait(0.1)
        assert self.asked_bytes(store) == 8, "the footer, when it was opened"
        assert store.events("completed") == 0
        store.store.close()

    def test_is_not_kept_in_memory(self) -> None:
        store, alive = self.evict(lambda _: PrefetchPlan())
        gc.collect()
        assert alive() is None
        store.store.close()


def test_a_layer_evicted_while_it_is_prefetched_is_not_fetched_to_its_end() -> None:
    store = Store(settings=Settings(resolve=ResolveSettings(keep=0)))
    source = store.plugin.sources[store.descriptors[0].digest]
    source.piece = 100
    fetching, evicted, pieces = threading.Event(), threading.Event(), []

    def on_piece(at: int) -> None:
        pieces.append(at)
        fetching.set()
        assert evicted.wait(20)

    store.plugin.plan = lambda _: PrefetchPlan((ByteRange(0, 2000),))
    with store.lend() as lease:
        source.on_piece = on_piece
        store.store.prefetcher.layer(lease.layer, {})
        alive = weakref.ref(lease.layer)
        assert fetching.wait(20)
    del lease
    evicted.set()
    pause = threading.Event()
    while alive() is not None:
        gc.collect()
        pause.wait(0.005)
    assert len(pieces) < 3, "the rest of the range was not fetched"
    assert store.events("failed") == 0
    assert store.events("completed") == 0
    store.store.close()


def test_an_evicted_layer_is_forgotten_by_the_background_that_waits_for_its_turn() -> None:
    store = Store(settings=Settings(resolve=ResolveSettings(keep=0), background=BackgroundSettings(silence=1000)))
    with store.lend() as lease:
        store.store.prefetcher.layer(lease.layer, {})
        assert store.store.prefetcher.wait(lease.layer, 20)
        alive = weakref.ref(lease.layer)
    del lease
    pause = threading.Event()
    while alive() is not None:
        gc.collect()
        pause.wait(0.005)
    store.store.close()
