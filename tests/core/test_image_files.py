"""Files of an image, found by path and fetched together; programs that readers load."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lazylayer import hookimpl
from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Platform
from lazylayer.api.opened import OpenedLayer
from lazylayer.api.settings import BackgroundSettings, FetchSettings, ResolveSettings, Settings
from lazylayer.api.tree import Entry
from lazylayer.errors import UnavailableError, VerificationError
from lazylayer.layers.image import Image, ImageFile, open_image
from lazylayer.layers.layer import Layer
from lazylayer.layers.merged import MergedLayers
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

    def __init__(self, *policies: object) -> None:
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
        self.program = SyntheticProgram(self.plugin, SETTINGS, policies)
        self.store = LayerStore(self.program.settings, self.program.hooks)
        resolved = self.program.hooks.resolve_image(REFERENCE, Platform("amd64", "linux"))
        self.image: Image = open_image(self.store, resolved)

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
    assert [
        ([layer.digest for layer in opened.image.layers].index(each.layer.digest), each.path) for each in files
    ] == [
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
        open_image(opened.store, opened.image.resolved)
    other = Opened()
    other.image.close()

    def held(_: object) -> None:
        gate.wait(20)

    other.plugin.before_open = held
    with ThreadPoolExecutor(1) as threads:
        opening = threads.submit(open_image, other.store, other.image.resolved)
        until(lambda: len([each for each in other.plugin.asked if each.startswith("open_layer")]) == 6)
        other.store.close()
        gate.set()
        assert opening.result(20).layers
    until(lambda: [event.kind for event in other.plugin.events].count("closed") == 6)


class Policy:
    """A `Locality` that follows programs, libraries and modules, and keeps what it is told of."""

    def __init__(self, act: Callable[[bytes, Entry], None] = lambda path, entry: None) -> None:
        self.told: list[bytes] = []
        self.act = act

    def follows(self, name: bytes, entry: Entry) -> bool:
        return bool(entry.mode & 0o111) or name.endswith((b".so.1", b".py"))

    def missed(self, path: bytes, entry: Entry) -> None:
        self.told.append(path)
        self.act(path, entry)


class TestFollowedFiles:
    """What policies are told of files that readers miss."""

    def follow(self, opened: Opened, *policies: Policy) -> None:
        layer = opened.image.layers[1]
        layer.windows.follow(policies)
        layer.windows.find_siblings()

    @pytest.fixture
    def told(self, opened: Opened) -> list[bytes]:
        policy = Policy()
        self.follow(opened, policy)
        return policy.told

    def read(self, opened: Opened, path: bytes, offset: int = 0) -> None:
        (file,) = opened.find(path)
        assert file.read(offset, 10) == opened.made[1].files[file.path[1:]][offset : offset + 10]

    def finish(self, opened: Opened) -> None:
        """Waits for every thread that fetches and then tells."""
        until(lambda: not [each for each in threading.enumerate() if each.name == "lazylayer-fetch"])

    def test_a_followed_file_is_told_of_when_its_start_is_missed(self, opened: Opened, told: list[bytes]) -> None:
        self.read(opened, b"/bin/tool")
        self.read(opened, b"/usr/lib/libz.so")
        self.read(opened, b"/app/m.py")
        self.finish(opened)
        assert sorted(told) == [b"/app/m.py", b"/usr/bin/tool", b"/usr/lib/libz.so.1"]

    def test_each_is_told_of_once_however_many_read_it(self, opened: Opened, told: list[bytes]) -> None:
        opened.source(1).gate.clear()
        with ThreadPoolExecutor(8) as threads:
            reads = [threads.submit(self.read, opened, b"/bin/tool") for _ in range(8)]
            opened.source(1).gate.set()
        assert [each.result() for each in reads] == [None] * 8
        self.read(opened, b"/bin/tool")
        self.finish(opened)
        assert told == [b"/usr/bin/tool"]

    def test_others_and_what_is_not_the_start_are_not_told_of(self, opened: Opened, told: list[bytes]) -> None:
        self.read(opened, b"/usr/share/data")
        self.read(opened, b"/bin/tool", 2500)
        self.finish(opened)
        assert told == []

    def test_what_is_found_in_the_cache_is_not_told_of(self, opened: Opened, told: list[bytes]) -> None:
        opened.image.fetch(opened.find(b"/bin/tool"))
        self.read(opened, b"/bin/tool")
        self.finish(opened)
        assert told == []

    def test_a_file_whose_fetch_failed_is_told_of_when_it_comes(self, opened: Opened, told: list[bytes]) -> None:
        opened.source(1).fail = lambda _: UnavailableError("away")
        with pytest.raises(UnavailableError):
            self.read(opened, b"/bin/tool")
        self.finish(opened)
        assert told == []
        opened.source(1).fail = lambda _: None
        self.read(opened, b"/bin/tool")
        self.finish(opened)
        assert told == [b"/usr/bin/tool"]

    def test_a_policy_that_fails_harms_nobody_and_all_are_told(self, opened: Opened) -> None:
        def fail(path: bytes, entry: Entry) -> None:
            raise ZeroDivisionError(path)

        sizes: list[int] = []
        bad, good = Policy(fail), Policy(lambda _, entry: sizes.append(entry.size))
        self.follow(opened, bad, good)
        self.read(opened, b"/bin/tool")
        self.finish(opened)
        assert bad.told == good.told == [b"/usr/bin/tool"]
        assert sizes == [3000]

    def test_a_policy_that_reads_the_file_is_not_told_again(self, opened: Opened) -> None:
        layer: Layer = opened.image.layers[1]
        policy = Policy(lambda _, entry: (layer.read(entry, 0, entry.size), None)[1])
        self.follow(opened, policy)
        self.read(opened, b"/bin/tool")
        self.finish(opened)
        assert policy.told == [b"/usr/bin/tool"]

    def test_nothing_is_asked_of_a_policy_before_the_first_miss_was_served(self, opened: Opened) -> None:
        asked: list[bytes] = []

        class Counting(Policy):
            def follows(self, name: bytes, entry: Entry) -> bool:
                asked.append(name)
                return super().follows(name, entry)

        policy = Counting()
        opened.image.layers[1].windows.follow([policy])
        assert asked == []
        self.read(opened, b"/bin/tool")
        self.finish(opened)
        assert sorted(asked) == [b"data", b"libz.so.1", b"m.py", b"n.pyc", b"tool"]
        assert policy.told == [b"/usr/bin/tool"]

    def test_a_closed_layer_keeps_no_policy(self) -> None:
        opened = Opened()
        policy = Policy()
        alive = weakref.ref(policy)
        self.follow(opened, policy)
        del policy
        layer = opened.image.layers[1]
        opened.close()
        gc.collect()
        assert alive() is None
        assert layer.tree


class Policies:
    """A plugin with a locality for every layer."""

    def __init__(self) -> None:
        self.localities: dict[str, Policy] = {}

    @hookimpl
    def lazylayer_layer_opened(self, layer: OpenedLayer) -> Policy:
        assert layer.tree.root
        return self.localities.setdefault(layer.digest, Policy())


class FailingPolicies:
    @hookimpl
    def lazylayer_layer_opened(self) -> None:
        raise ZeroDivisionError


def test_hook_layer_opened_hands_over_what_misses_call() -> None:
    policies = Policies()
    opened = Opened(FailingPolicies(), policies)
    assert set(policies.localities) == {each.digest for each in opened.made}
    (file,) = opened.find(b"/bin/tool")
    file.read(0, 10)
    until(lambda: policies.localities[opened.made[1].digest].told == [b"/usr/bin/tool"])
    opened.close()


# --- being told that all is here -----------------------------------------------------------------


class TestWhenComplete:
    """`MountableTree.when_complete` of layers and of merged layers."""

    def fetch_all(self, opened: Opened, *numbers: int) -> None:
        for number in numbers:
            opened.image.layers[number].prefetch(ByteRange(0, len(opened.made[number].data)))

    def test_a_layer_tells_once(self, opened: Opened) -> None:
        told: list[str] = []
        layer = opened.image.layers[0]
        layer.when_complete(lambda: told.append("before"))
        self.fetch_all(opened, 1)
        assert told == []
        self.fetch_all(opened, 0)
        self.fetch_all(opened, 0)
        assert told == ["before"]
        layer.when_complete(lambda: told.append("at once"))
        assert told == ["before", "at once"]

    def test_merged_layers_tell_when_the_last_one_is_here(self, opened: Opened) -> None:
        told: list[bool] = []
        merged = opened.image.merged()
        merged.when_complete(lambda: told.append(merged.complete))
        self.fetch_all(opened, 2, 0)
        assert told == []
        self.fetch_all(opened, 1)
        assert told == [True]
        opened.image.merged().when_complete(lambda: told.append(True))
        assert told == [True, True]

    def test_no_layers_are_complete(self, opened: Opened) -> None:
        told: list[None] = []
        MergedLayers(REFERENCE, (), opened.image.layers[0].tree).when_complete(lambda: told.append(None))
        assert told == [None]

    def test_a_withdrawn_callback_is_not_called(self, opened: Opened) -> None:
        told: list[None] = []
        opened.image.layers[0].when_complete(lambda: told.append(None))()
        opened.image.merged().when_complete(lambda: told.append(None))()
        self.fetch_all(opened, 0, 1, 2)
        assert told == []

    def test_a_callback_that_fails_disturbs_no_reader_and_no_other(self, opened: Opened) -> None:
        told: list[None] = []

        def fail() -> None:
            raise ZeroDivisionError

        layer = opened.image.layers[2]
        layer.when_complete(fail)
        layer.when_complete(lambda: told.append(None))
        (file,) = opened.find(b"/etc/3")
        assert file.read(0, 5000) == content(103)
        until(lambda: told)

    def test_a_layer_that_is_elsewhere_is_complete(self, opened: Opened) -> None:
        told: list[None] = []
        layer = opened.image.layers[0]
        layer.when_complete(lambda: told.append(None))
        layer.inventory.mark_available()
        assert layer.complete
        assert told == [None]
        assert opened.asked()[0] == 1, "the footer"
