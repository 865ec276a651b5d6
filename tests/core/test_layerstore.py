"""Layers are opened once, shared, and let go."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lazylayer.api.settings import BackgroundSettings, ResolveSettings, Settings
from lazylayer.errors import FormatError, UnavailableError
from lazylayer.layers.layer import Layer
from lazylayer.layers.store import LayerStore
from lazylayer_testing.synthetic import REFERENCE, MemoryPlugin, SyntheticLayer, SyntheticProgram


class Store:
    def __init__(self, count: int = 3, settings: Settings | None = None) -> None:
        self.plugin = MemoryPlugin([SyntheticLayer({b"f": random.Random(n).randbytes(3000)}) for n in range(count)])
        program = SyntheticProgram(self.plugin, settings)
        self.store = LayerStore(program.settings, program.hooks)
        self.descriptors = self.plugin.descriptors()

    def borrow(self, number: int = 0, timeout: float = 20) -> Layer:
        return self.store.borrow(REFERENCE, self.descriptors[number], verify=True, timeout=timeout)

    def asked(self, what: str) -> int:
        return sum(each.startswith(what) for each in self.plugin.asked)

    def events(self, kind: str) -> int:
        return sum(event.kind == kind for event in self.plugin.events)


@pytest.mark.seed(4)
def test_a_layer_is_opened_once_for_all_who_ask() -> None:
    store = Store()
    barrier = threading.Barrier(8)

    def borrow(_: int) -> Layer:
        barrier.wait(20)
        return store.borrow()

    with ThreadPoolExecutor(8) as threads:
        layers = set(threads.map(borrow, range(8)))
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
        store.borrow()
    assert store.events("failed") == 1
    failing.clear()
    assert store.borrow().digest == store.descriptors[0].digest
    store.store.close()


def test_what_a_plugin_raises_by_mistake_is_a_layer_error_with_its_name() -> None:
    store = Store()

    def fail(_: str) -> None:
        raise ZeroDivisionError("oops")

    store.plugin.before_open = fail
    with pytest.raises(Exception, match=r"memory.*oops") as caught:
        store.borrow()
    assert not isinstance(caught.value, ZeroDivisionError)
    store.store.close()


@pytest.mark.seed(4)
def test_an_opening_that_takes_too_long_is_an_error_now_and_ready_later() -> None:
    store = Store()
    gate = threading.Event()
    opened = threading.Event()

    def wait(_: str) -> None:
        gate.wait(20)
        opened.set()

    store.plugin.before_open = wait
    with pytest.raises(UnavailableError, match=r"not resolved within 0\.01 s"):
        store.borrow(timeout=0.01)
    gate.set()
    assert opened.wait(20)
    assert store.borrow().digest == store.descriptors[0].digest
    assert store.asked("open_layer") == 1
    store.store.close()


@pytest.mark.seed(4)
def test_unused_layers_are_kept_up_to_a_number_and_the_oldest_leaves() -> None:
    store = Store(settings=Settings(resolve=ResolveSettings(keep=2)))
    layers = [store.borrow(number) for number in range(3)]
    for layer in layers:
        store.store.release(layer)
    assert store.events("closed") == 1
    assert [source.closed for source in store.plugin.sources.values()] == [True, False, False]
    assert store.borrow(2) is layers[2]
    assert store.borrow(0) is not layers[0]
    assert store.asked("open_layer") == 4
    store.store.close()


def test_a_layer_in_use_is_never_closed() -> None:
    store = Store(settings=Settings(resolve=ResolveSettings(keep=0)))
    layer = store.borrow()
    again = store.borrow()
    store.store.release(layer)
    assert store.events("closed") == 0
    store.store.release(again)
    assert store.events("closed") == 1
    store.store.close()


def test_a_bad_table_in_the_cache_is_fetched_again() -> None:
    store = Store()
    footer = store.plugin.layers[store.descriptors[0].digest].data[-8:]
    store.borrow()
    store.store.close()
    ranges = store.plugin.caches["ranges"].values
    ranges.update({key: bytes(len(value)) for key, value in ranges.items() if value == footer})

    store.plugin.verify = lambda tail: None if tail == footer else FormatError("torn")
    program = SyntheticProgram(store.plugin)
    second = LayerStore(program.settings, program.hooks)
    assert second.borrow(REFERENCE, store.descriptors[0], verify=True, timeout=20).tree.lookup(b"f")
    assert store.asked("open_layer") == 3, "once at first; then with the bad bytes, and with fetched ones"
    assert footer in ranges.values()
    second.close()


@pytest.mark.seed(7)
def test_a_layer_is_fetched_in_the_background_until_it_is_whole() -> None:
    store = Store(settings=Settings(background=BackgroundSettings(silence=0, request_size=1024)))
    layer = store.borrow()
    store.store.fetch_in_background(layer)
    store.store.fetch_in_background(layer)
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
    layer = store.borrow()
    store.store.fetch_in_background(layer)
    store.store.close()
    assert layer.state().fetched == 8
