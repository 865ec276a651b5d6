"""What is done for a whole image when its layers are mounted one by one."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.oci import Reference, sha256_digest
from lazylayer.api.opened import OpenedImage
from lazylayer.api.settings import BackgroundSettings, PrefetchSettings, ResolveSettings, Settings
from lazylayer.errors import FormatError, UnavailableError
from lazylayer.mounts.filesystem import Filesystem
from lazylayer_snapshotter_containerd.labels import layer_source_labels
from lazylayer_testing.synthetic import REFERENCE, MemoryPlugin, SyntheticLayer, SyntheticProgram

QUIET = Settings(background=BackgroundSettings(enabled=False), resolve=ResolveSettings(check_interval=0))


class Node:
    """A file system over an image of layers, each mounted where it is asked to be."""

    def __init__(self, directory: Path, layers: int = 3, settings: Settings = QUIET) -> None:
        self.plugin = MemoryPlugin(
            [SyntheticLayer({b"f%d" % n: random.Random(n).randbytes(100)}) for n in range(layers)]
        )
        self.filesystem = Filesystem(SyntheticProgram(self.plugin, settings))  # type: ignore[arg-type]
        self.digests = list(self.plugin.layers)
        self._directory = directory
        self._mounts = 0

    def mountpoint(self) -> str:
        self._mounts += 1
        path = self._directory / str(self._mounts)
        path.mkdir()
        return str(path)

    def mount(self, *numbers: int, check: bool = True) -> list[str]:
        """Mounts layers one by one, each when nothing is done behind the back of the one before."""
        mountpoints = []
        for number in numbers:
            mountpoints.append(self.mountpoint())
            self.filesystem.mount(mountpoints[-1], self.plugin.labels(number), check=check)
            self.settle()
        return mountpoints

    def settle(self) -> None:
        behind = ("lazylayer-neighbours", "lazylayer-prefetch", "lazylayer-image")
        until(lambda: not [each for each in threading.enumerate() if each.name.startswith(behind)])

    def prefetched(self) -> int:
        return self.plugin.asked.count("prefetch_image")


@pytest.fixture
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Node:
    return Node(tmp_path, settings=getattr(request, "param", QUIET))


def until(condition: Callable[[], object]) -> None:
    """Waits until it holds; the test's own time-out ends a wait in vain."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.005)


def fail(*_: object) -> None:
    raise UnavailableError("its registry is away")


def test_an_image_is_prefetched_once_however_many_layers_are_mounted(node: Node) -> None:
    seen: list[OpenedImage] = []
    node.plugin.prefetch_image = seen.append
    node.mount(0, 1, 2)
    assert node.prefetched() == 1
    assert [layer.digest for layer in seen[0].layers] == node.digests
    assert node.plugin.asked.count("resolve_image") == 1
    node.filesystem.close()


def test_that_holds_for_layers_that_are_mounted_at_the_same_time(node: Node) -> None:
    mounts = [
        threading.Thread(target=node.filesystem.mount, args=(node.mountpoint(), node.plugin.labels(number)))
        for number in (0, 1, 2)
    ]
    for each in mounts:
        each.start()
    for each in mounts:
        each.join()
    node.settle()
    assert node.prefetched() == 1
    node.filesystem.close()


def test_that_holds_for_images_whose_layers_no_label_can_hold(tmp_path: Path) -> None:
    node = Node(tmp_path, layers=70)
    node.mount(0, 1, 20, 69)
    assert node.prefetched() == 1
    node.filesystem.close()


def test_an_image_is_prefetched_again_when_its_layers_were_let_go(tmp_path: Path) -> None:
    node = Node(tmp_path, settings=msgspec.structs.replace(QUIET, resolve=ResolveSettings(check_interval=0, keep=0)))
    for _ in range(2):
        for each in node.mount(0, 1, 2):
            node.filesystem.unmount(each)
    assert node.prefetched() >= 2
    node.filesystem.close()


def test_what_is_mounted_again_after_a_restart_is_not_prefetched(node: Node) -> None:
    node.mount(0, 1, 2, check=False)
    assert node.prefetched() == 0
    assert len([each for each in node.plugin.asked if each.startswith("open_layer")]) == 3
    node.filesystem.close()


def test_nothing_is_prefetched_where_nobody_wants_it(tmp_path: Path) -> None:
    node = Node(tmp_path, settings=msgspec.structs.replace(QUIET, prefetch=PrefetchSettings(enabled=False)))
    node.mount(0, 1, 2)
    node.filesystem.mount_image(node.mountpoint(), REFERENCE)
    node.settle()
    assert node.prefetched() == 0
    node.filesystem.close()


@pytest.mark.parametrize("now", [[0, 1], [0, 2, 3], [0, 1, 2, 3], [3], []], ids=str)
def test_an_image_whose_tag_has_moved_is_not_prefetched_in_its_place(tmp_path: Path, now: list[int]) -> None:
    node = Node(tmp_path, layers=4)
    node.plugin.tagged = node.digests[:3]
    labels = [node.plugin.labels(number) for number in range(3)]
    labels = [{name: value.replace(f",{node.digests[3]}", "") for name, value in each.items()} for each in labels]
    node.plugin.tagged = [node.digests[number] for number in now]
    for each in labels:
        node.filesystem.mount(node.mountpoint(), each)
        node.settle()
    assert node.prefetched() == 0
    node.filesystem.close()


def test_a_resolver_that_fails_does_not_disturb_mounts(node: Node) -> None:
    for error in (UnavailableError("away"), ZeroDivisionError("a bug")):

        def refuse(_: object, error: Exception = error) -> None:
            raise error

        node.plugin.before_resolve = refuse
        node.mount(0, 1)
    node.plugin.before_resolve = lambda _: None
    node.mount(2)
    assert node.prefetched() == 1, "the next mount tries again"
    node.filesystem.close()


def test_a_layer_that_is_not_lazy_does_not_disturb_the_others(node: Node) -> None:
    def refuse(digest: str) -> None:
        if digest == node.digests[1]:
            raise FormatError("it has no table of contents")

    node.plugin.before_open = refuse
    node.mount(0)
    with pytest.raises(FormatError):
        node.mount(1)
    node.settle()
    node.mount(2)
    assert node.prefetched() == 0, "files of an image cannot be found without all of its layers"
    assert len(node.filesystem.mounts()) == 2
    node.filesystem.close()


@pytest.mark.parametrize("by", ["labels", "reference"])
def test_a_policy_that_fails_does_not_disturb_mounts(node: Node, by: str) -> None:
    node.plugin.prefetch_image = fail
    mountpoints = node.mount(0, 1, 2) if by == "labels" else [node.mountpoint()]
    if by == "reference":
        node.filesystem.mount_image(mountpoints[0], REFERENCE)
        node.settle()
    assert node.prefetched() == 1
    for each in mountpoints:
        node.filesystem.check(each)
    node.filesystem.close()


def test_an_image_that_is_mounted_by_hand_is_prefetched_and_one_layer_of_it_is_not(node: Node) -> None:
    node.filesystem.mount_image(node.mountpoint(), REFERENCE, layer=1)
    node.settle()
    assert node.prefetched() == 0
    node.filesystem.mount_image(node.mountpoint(), REFERENCE)
    node.settle()
    assert node.prefetched() == 1
    node.filesystem.mount_image(node.mountpoint(), REFERENCE)
    node.settle()
    assert node.prefetched() == 1, "once while its layers are open"
    node.filesystem.close()


def test_a_mount_does_not_wait_for_its_prefetch(node: Node) -> None:
    gate = threading.Event()

    def held(image: OpenedImage) -> None:
        assert gate.wait(20)
        image.fetch([found for found in [image.find(b"/f1")] if found is not None])

    node.plugin.prefetch_image = held
    for number in range(3):
        node.filesystem.mount(node.mountpoint(), node.plugin.labels(number))
    until(node.prefetched)
    assert len(node.filesystem.mounts()) == 3
    gate.set()
    node.settle()
    node.filesystem.close()


def test_files_that_come_too_late_for_a_closed_file_system_harm_nobody(node: Node) -> None:
    gate = threading.Event()

    def late(image: OpenedImage) -> None:
        assert gate.wait(20)
        image.fetch([found for found in [image.find(b"/f1")] if found is not None])

    node.plugin.prefetch_image = late
    node.filesystem.mount(node.mountpoint(), node.plugin.labels(0))
    until(node.prefetched)
    node.filesystem.close()
    gate.set()
    node.settle()


class TestSlowRegistries:
    """Registries that send a manifest byte by byte, forever."""

    @pytest.fixture
    def stuck(self, node: Node) -> Iterator[threading.Event]:
        """Mounts layers of ten images at slow.test, whose manifests do not come before the event is set."""
        gate = threading.Event()

        def drip(reference: Reference) -> None:
            if reference.host == "slow.test" and reference.repository != "healed":
                gate.wait(60)

        node.plugin.before_resolve = drip
        for number in range(10):
            self.mount(node, Reference(f"image{number}", "slow.test", "1"))
        until(lambda: node.plugin.asked.count("resolve_image") >= 8)
        yield gate
        gate.set()
        node.settle()
        node.filesystem.close()

    def mount(self, node: Node, reference: Reference) -> None:
        labels = layer_source_labels(reference, node.digests[0], node.digests)
        node.filesystem.mount(node.mountpoint(), {**labels, TOC_DIGEST: sha256_digest(b"toc")})

    def test_other_hosts_are_not_held_up(self, node: Node, stuck: threading.Event) -> None:
        node.filesystem.mount(node.mountpoint(), node.plugin.labels(0))
        until(node.prefetched)
        assert not stuck.is_set()

    @pytest.mark.parametrize(
        "node", [msgspec.structs.replace(QUIET, resolve=ResolveSettings(timeout=0.2))], indirect=True, ids=["brief"]
    )
    def test_the_same_host_is_asked_again_after_the_time_limit(self, node: Node, stuck: threading.Event) -> None:
        asked = node.plugin.asked.count("resolve_image")
        self.mount(node, Reference("healed", "slow.test", "1"))
        until(lambda: node.plugin.asked.count("resolve_image") > asked + 2)
        assert not stuck.is_set()


def test_images_whose_prefetch_does_not_end_hold_up_no_others_of_their_registry(node: Node) -> None:
    """Policies look into files of images, whose authors can make that slow."""
    gate = threading.Event()

    def wait(image: object) -> None:
        gate.wait(60)

    node.plugin.prefetch_image = wait
    try:
        for number in range(20):
            reference = Reference(f"image{number}", "one.test", "1")
            node.plugin.references.add(reference)
            labels = layer_source_labels(reference, node.digests[0], node.digests)
            node.filesystem.mount(node.mountpoint(), {**labels, TOC_DIGEST: sha256_digest(b"toc")})
        until(lambda: node.prefetched() == 20)
        assert not gate.is_set()
    finally:
        gate.set()
    node.settle()
    node.filesystem.close()


ENDING = """
import sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lazylayer_testing.synthetic import REFERENCE, MemoryPlugin, SyntheticProgram
from lazylayer_testing.synthetic import MemorySource, SyntheticLayer
from lazylayer.mounts.filesystem import Filesystem

plugin = MemoryPlugin([SyntheticLayer({b"f%d" % n: b"content %d" % n}) for n in range(3)])
under_way = threading.Barrier(1 + 3)

class Stuck:
    def wait(self, timeout):
        under_way.wait()
        threading.Event().wait()  # forever

def prefetch(image):
    for source in plugin.sources.values():
        source.gate = Stuck()
    image.fetch(image.find(b"/f%d" % n) for n in range(3))

plugin.prefetch_image = prefetch
filesystem = Filesystem(SyntheticProgram(plugin))
if sys.argv[3] == "labels":
    filesystem.mount(sys.argv[2], plugin.labels(0))
else:
    filesystem.mount_image(sys.argv[2], REFERENCE)
under_way.wait()
filesystem.close()
print("closed")
"""


@pytest.mark.parametrize("by", ["labels", "reference"])
def test_a_process_ends_while_a_prefetch_is_stuck(tmp_path: Path, by: str) -> None:
    tests = str(Path(__file__).parent.parent)
    command = [sys.executable, "-W", "error", "-c", ENDING, tests, str(tmp_path), by]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, b"closed\n"), done.stderr
    assert b"Traceback" not in done.stderr
