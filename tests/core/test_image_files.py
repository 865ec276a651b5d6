"""Files of an image, found by path and fetched together; programs that readers load."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lazylayer.api.oci import Platform
from lazylayer.api.settings import BackgroundSettings, FetchSettings, ResolveSettings, Settings
from lazylayer.api.tree import Entry
from lazylayer.errors import UnavailableError, VerificationError
from lazylayer.layers.image import Image, ImageFile, open_image
from lazylayer.layers.layer import Layer
from lazylayer.layers.store import LayerStore
from lazylayer_testing.synthetic import REFERENCE, MemoryPlugin, MemorySource, SyntheticLayer, SyntheticProgram

SETTINGS = Settings(
    background=BackgroundSettings(enabled=False),
    fetch=FetchSettings(window_min=1, window_max=1),
    resolve=ResolveSettings(keep=0),
)


def content(seed: int, size: int = 3000) -> bytes:
    return random.Random(seed).randbytes(size)


class Opened:
    """An image of three layers: data, programs with links to them, and a layer on top that replaces one file."""

    def __init__(self) -> None:
        self.made = [
            SyntheticLayer({b"etc/%d" % number: content(number) for number in range(20)}),
            SyntheticLayer(
                {
                    b"usr/bin/tool": content(50),
                    b"usr/lib/libz.so.1": content(51),
                    b"usr/share/data": content(52),
                    b"app/m.py": b"import m\n",
                    b"app/n.pyc": content(53),
                },
                links={b"bin": b"usr/bin", b"usr/lib/libz.so": b"libz.so.1"},
                programs=[b"usr/bin/tool"],
            ),
            SyntheticLayer({b"etc/3": content(103)}),
        ]
        self.plugin = MemoryPlugin(self.made)
        self.program = SyntheticProgram(self.plugin, SETTINGS)
        self.store = LayerStore(self.program.settings, self.program.hooks)
        resolved = self.program.hooks.resolve_image(REFERENCE, Platform("amd64", "linux"))
        self.image: Image = open_image(self.store, resolved, self.program.settings)

    def source(self, number: int) -> MemorySource:
        return self.plugin.sources[self.made[number].digest]

    def asked(self) -> list[int]:
        return [len(self.source(number).asked) for number in range(3)]

    def find(self, *paths: bytes) -> list[ImageFile]:
        found = [self.image.find(path) for path in paths]
        assert None not in found
        return [each for each in found if each is not None]

    def close(self) -> None:
        self.image.close()
        self.store.close()


@pytest.fixture
def opened() -> Iterator[Opened]:
    opened = Opened()
    yield opened
    opened.close()


def until(condition: Callable[[], object]) -> None:
    """Waits until it holds; the test's own time-out ends a wait in vain."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.005)


def test_a_file_is_found_where_a_container_would_find_it(opened: Opened) -> None:
    files = opened.find(b"/bin/tool", b"/usr/lib/libz.so", b"/etc/3", b"etc/4")
    assert [(opened.image.layers.index(each.layer), each.path) for each in files] == [
        (1, b"/usr/bin/tool"),
        (1, b"/usr/lib/libz.so.1"),
        (2, b"/etc/3"),
        (0, b"/etc/4"),
    ]
    assert opened.image.find(b"/usr/bin/none") is None
    assert files[2].read(0, 5000) == content(103)


def test_files_are_fetched_with_one_request_for_each_layer(opened: Opened) -> None:
    before = opened.asked()
    files = opened.find(b"/etc/1", b"/etc/2", b"/etc/3", b"/etc/19", b"/bin/tool", b"/usr/lib/libz.so", b"/etc/1")
    opened.image.fetch(files)
    assert [now - then for now, then in zip(opened.asked(), before, strict=True)] == [1, 1, 1]
    assert [each.read(0, 5000) for each in files[:2]] == [content(1), content(2)]
    assert all(len(each.read(0, 5000)) == 3000 for each in files)
    assert [now - then for now, then in zip(opened.asked(), before, strict=True)] == [1, 1, 1], "all of it was here"


def test_only_what_is_missing_is_fetched(opened: Opened) -> None:
    (one, other) = opened.find(b"/etc/0", b"/etc/19")
    opened.image.fetch([one])
    asked = opened.source(0).asked_bytes
    opened.image.fetch([one, other])
    assert len(opened.source(0).asked[-1]) == 1
    assert 3000 <= opened.source(0).asked_bytes - asked < 3500
    before = opened.asked()
    opened.image.fetch([one, other])
    opened.image.fetch([])
    assert opened.asked() == before


def test_what_has_no_data_is_nothing_to_fetch(opened: Opened) -> None:
    before = opened.asked()
    opened.image.fetch(opened.find(b"/etc", b"/"))
    assert opened.asked() == before


def test_an_error_of_one_layer_is_told_when_the_others_are_done(opened: Opened) -> None:
    opened.source(0).fail = lambda _: UnavailableError("the cable was pulled")
    first, second = opened.find(b"/etc/1", b"/usr/share/data")
    with pytest.raises(UnavailableError, match="cable"):
        opened.image.fetch([first, second])
    before = opened.asked()
    assert second.read(0, 3000) == content(52)
    assert opened.asked() == before
    opened.source(0).fail = lambda _: None
    opened.image.fetch([first])
    assert first.read(0, 3000) == content(1)


def test_wrong_bytes_are_never_kept(opened: Opened) -> None:
    source = opened.source(1)
    good, source.data = source.data, bytes(len(source.data))
    (file,) = opened.find(b"/usr/share/data")
    opened.image.fetch([file])
    with pytest.raises(VerificationError):
        file.read(0, 3000)
    source.data = good
    assert file.read(0, 3000) == content(52)


def test_layers_are_fetched_at_the_same_time(opened: Opened) -> None:
    everywhere = threading.Barrier(3, timeout=20)

    def meet(_: object) -> None:
        everywhere.wait()

    for number in range(3):
        opened.source(number).fail = meet
    opened.image.fetch(opened.find(b"/etc/1", b"/bin/tool", b"/etc/3"))


def test_a_closed_image_gives_its_layers_back_once() -> None:
    opened = Opened()
    layers = opened.image.layers
    (file,) = opened.find(b"/etc/1")
    opened.image.close()
    opened.image.close()
    assert [event.kind for event in opened.plugin.events].count("closed") == len(layers)
    assert opened.image.find(b"/etc/1") == file, "trees can be looked into all the same"
    opened.store.close()


def test_nothing_is_opened_in_a_store_that_is_closed() -> None:
    opened = Opened()
    gate = threading.Event()
    opened.close()
    with pytest.raises(UnavailableError, match="ending"):
        open_image(opened.store, opened.image.resolved, opened.program.settings)
    other = Opened()
    other.image.close()

    def held(_: object) -> None:
        gate.wait(20)

    other.plugin.before_open = held
    with ThreadPoolExecutor(1) as threads:
        opening = threads.submit(open_image, other.store, other.image.resolved, other.program.settings)
        until(lambda: len([each for each in other.plugin.asked if each.startswith("open_layer")]) == 6)
        other.store.close()
        gate.set()
        assert opening.result(20).layers
    until(lambda: [event.kind for event in other.plugin.events].count("closed") == 6)


class TestPrograms:
    """What is told of programs that readers load."""

    @pytest.fixture
    def told(self, opened: Opened) -> list[bytes]:
        told: list[bytes] = []
        layer = opened.image.layers[1]
        layer.find_siblings()
        layer.watch_programs("test", lambda path, _: told.append(path))
        return told

    def read(self, opened: Opened, path: bytes, offset: int = 0) -> None:
        (file,) = opened.find(path)
        assert file.read(offset, 10) == opened.made[1].files[file.path[1:]][offset : offset + 10]

    def finish(self, opened: Opened) -> None:
        """Waits for every thread that fetches and then tells."""
        until(lambda: not [each for each in threading.enumerate() if each.name == "lazylayer-fetch"])

    def test_a_program_and_a_library_are_told_of_when_their_start_is_missed(
        self, opened: Opened, told: list[bytes]
    ) -> None:
        self.read(opened, b"/bin/tool")
        self.read(opened, b"/usr/lib/libz.so")
        self.finish(opened)
        assert sorted(told) == [b"/usr/bin/tool", b"/usr/lib/libz.so.1"]

    def test_modules_are_told_of_too_however_small(self, opened: Opened, told: list[bytes]) -> None:
        self.read(opened, b"/app/m.py")
        self.read(opened, b"/app/n.pyc")
        self.finish(opened)
        assert sorted(told) == [b"/app/m.py", b"/app/n.pyc"]

    def test_each_is_told_of_once_however_many_read_it(self, opened: Opened, told: list[bytes]) -> None:
        opened.source(1).gate.clear()
        with ThreadPoolExecutor(8) as threads:
            reads = [threads.submit(self.read, opened, b"/bin/tool") for _ in range(8)]
            opened.source(1).gate.set()
        assert [each.result() for each in reads] == [None] * 8
        self.read(opened, b"/bin/tool")
        self.finish(opened)
        assert told == [b"/usr/bin/tool"]

    def test_data_and_what_is_not_the_start_are_not_told_of(self, opened: Opened, told: list[bytes]) -> None:
        self.read(opened, b"/usr/share/data")
        self.read(opened, b"/bin/tool", 2500)
        self.finish(opened)
        assert told == []

    def test_what_is_found_in_the_cache_is_not_told_of(self, opened: Opened, told: list[bytes]) -> None:
        opened.image.fetch(opened.find(b"/bin/tool"))
        self.read(opened, b"/bin/tool")
        self.finish(opened)
        assert told == []

    def test_a_program_whose_fetch_failed_is_told_of_when_it_comes(self, opened: Opened, told: list[bytes]) -> None:
        opened.source(1).fail = lambda _: UnavailableError("away")
        with pytest.raises(UnavailableError):
            self.read(opened, b"/bin/tool")
        self.finish(opened)
        assert told == []
        opened.source(1).fail = lambda _: None
        self.read(opened, b"/bin/tool")
        self.finish(opened)
        assert told == [b"/usr/bin/tool"]

    def test_a_watcher_that_fails_harms_nobody(self, opened: Opened, told: list[bytes]) -> None:
        def fail(path: bytes, entry: Entry) -> None:
            raise ZeroDivisionError(path)

        layer = opened.image.layers[1]
        layer.watch_programs("a bad one", fail)
        layer.watch_programs("another", lambda path, entry: told.append(b"%s of %d" % (path, entry.size)))
        self.read(opened, b"/bin/tool")
        self.finish(opened)
        assert told == [b"/usr/bin/tool", b"/usr/bin/tool of 3000"]

    def test_the_last_watcher_of_a_plugin_counts(self, opened: Opened, told: list[bytes]) -> None:
        layer = opened.image.layers[1]
        for number in range(3):
            layer.watch_programs("test", lambda path, _, number=number: told.append(b"%d" % number))  # type: ignore[misc]
        self.read(opened, b"/bin/tool")
        self.finish(opened)
        assert told == [b"2"]

    def test_a_watcher_that_reads_the_program_is_not_told_again(self, opened: Opened, told: list[bytes]) -> None:
        layer: Layer = opened.image.layers[1]

        def read_on(path: bytes, entry: Entry) -> None:
            told.append(path + b" whole")
            layer.read(entry, 0, entry.size)

        layer.watch_programs("test", read_on)
        self.read(opened, b"/bin/tool")
        self.finish(opened)
        assert told == [b"/usr/bin/tool whole"]

    def test_a_closed_layer_keeps_no_watcher(self) -> None:
        opened = Opened()

        class Watcher:
            def __call__(self, path: bytes, entry: Entry) -> None:
                raise AssertionError

        watcher = Watcher()
        alive = weakref.ref(watcher)
        layer = opened.image.layers[1]
        layer.watch_programs("test", watcher)
        del watcher
        opened.close()
        gc.collect()
        assert alive() is None
        assert layer.tree
