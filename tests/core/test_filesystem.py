"""Mount, check, unmount, as a snapshotter asks for them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.labels import SKIP_VERIFY, TOC_DIGEST
from lazylayer.api.layers import PrefetchPlan
from lazylayer.api.oci import sha256_digest
from lazylayer.api.settings import BackgroundSettings, FetchSettings, PrefetchSettings, ResolveSettings, Settings
from lazylayer.errors import (
    AuthenticationError,
    MountError,
    NotFoundError,
    NotMountedError,
    UnavailableError,
    VerificationError,
)
from lazylayer.mounts.filesystem import Filesystem
from lazylayer_testing.synthetic import REFERENCE, MemoryPlugin, SyntheticLayer, SyntheticProgram

QUIET = Settings(
    background=BackgroundSettings(enabled=False),
    resolve=ResolveSettings(check_interval=0),
    prefetch=PrefetchSettings(timeout=0.05),
)


class Machine:
    """A file system over a plugin with three layers, and mountpoints to use."""

    def __init__(self, directory: Path, settings: Settings = QUIET) -> None:
        self.layers = [SyntheticLayer({b"f%d" % n: random.Random(n).randbytes(3000)}) for n in range(3)]
        self.plugin = MemoryPlugin(self.layers)
        self.filesystem = Filesystem(SyntheticProgram(self.plugin, settings))  # type: ignore[arg-type]
        self.mountpoints = [str(directory / str(number)) for number in range(3)]
        for each in self.mountpoints:
            Path(each).mkdir(parents=True)

    def mount(self, number: int = 0, **labels: str) -> None:
        self.filesystem.mount(self.mountpoints[number], {**self.plugin.labels(number), **labels})

    def mount_with_slow_prefetch(self) -> threading.Event:
        """Mounts a layer whose prefetch goes on until the event that is returned."""
        gate = threading.Event()

        def plan(_: object) -> PrefetchPlan:
            gate.wait(20)
            return PrefetchPlan()

        self.plugin.plan = plan
        self.mount()
        until(lambda: any(each.startswith("plan_prefetch") for each in self.plugin.asked))
        return gate

    def kinds(self) -> list[str]:
        return [event.kind for event in self.plugin.events]

    def fail_source(self, number: int, error: Exception | None) -> None:
        self.plugin.sources[self.layers[number].digest].fail = lambda _: error


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.filesystem.close()


def until(condition: Callable[[], object]) -> None:
    """Waits until it holds; the test's own time-out ends a wait in vain."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.005)


@pytest.mark.seed(5)
def test_a_mount_is_shown_and_registered(machine: Machine) -> None:
    machine.mount()
    assert [(each.mountpoint, each.reference) for each in machine.filesystem.mounts()] == [
        (machine.mountpoints[0], str(REFERENCE))
    ]
    shown = machine.plugin.mounts[machine.mountpoints[0]].tree
    entry = shown.tree.lookup(b"f0")
    assert entry is not None
    assert shown.read(entry, 0, 1 << 20) == machine.layers[0].files[b"f0"]
    assert [each.frontend for each in machine.plugin.events if each.kind == "mounted"] == ["recorded"]


@pytest.mark.seed(4)
def test_the_layers_of_the_chain_are_opened_along_with_the_target(machine: Machine) -> None:
    machine.mount(0)
    until(lambda: machine.kinds().count("resolved") == 3)
    asked = [each for each in machine.plugin.asked if each.startswith("open_layer")]
    machine.mount(1)
    machine.mount(2)
    assert [each for each in machine.plugin.asked if each.startswith("open_layer")] == asked


@pytest.mark.seed(4)
def test_a_neighbour_that_fails_does_not_disturb_the_target(machine: Machine) -> None:
    def fail(digest: str) -> None:
        if digest != machine.layers[0].digest:
            raise UnavailableError("its registry is away")

    machine.plugin.before_open = fail
    machine.mount(0)
    until(lambda: machine.kinds().count("failed") == 2)
    with pytest.raises(UnavailableError):
        machine.mount(1)
    machine.plugin.before_open = lambda _: None
    machine.mount(1)


@pytest.mark.seed(5)
def test_a_layer_whose_source_does_not_answer_is_not_mounted(machine: Machine) -> None:
    machine.mount(0)
    machine.filesystem.unmount(machine.mountpoints[0])
    machine.fail_source(0, UnavailableError("connection refused"))
    with pytest.raises(UnavailableError, match="refused"):
        machine.mount(0)
    assert machine.filesystem.mounts() == ()


@pytest.mark.seed(9)
def test_a_check_of_an_unknown_mountpoint_is_an_error(machine: Machine) -> None:
    with pytest.raises(NotMountedError, match="nothing is mounted"):
        machine.filesystem.check(machine.mountpoints[0])


@pytest.mark.seed(9)
def test_a_check_tries_three_times(machine: Machine) -> None:
    machine.mount()
    source = machine.plugin.sources[machine.layers[0].digest]
    before = source.checks
    machine.fail_source(0, AuthenticationError("the token has expired"))
    with pytest.raises(AuthenticationError):
        machine.filesystem.check(machine.mountpoints[0])
    assert source.checks - before == 3
    machine.fail_source(0, None)
    machine.filesystem.check(machine.mountpoints[0])


@pytest.mark.seed(9)
def test_a_source_that_answered_lately_is_not_checked(tmp_path: Path) -> None:
    machine = Machine(tmp_path, msgspec.structs.replace(QUIET, resolve=ResolveSettings(check_interval=60)))
    machine.mount()
    lease = machine.filesystem.layers.lend(REFERENCE, machine.plugin.descriptors()[0])
    layer = lease.layer
    source = machine.plugin.sources[machine.layers[0].digest]
    before = source.checks
    machine.filesystem.check(machine.mountpoints[0])
    assert source.checks == before
    layer.blob.last_contact -= 61
    machine.filesystem.check(machine.mountpoints[0])
    assert source.checks == before + 1
    machine.filesystem.check(machine.mountpoints[0])
    assert source.checks == before + 1, "the check itself was an answer"
    layer.blob.last_contact -= 61
    machine.plugin.mounts[machine.mountpoints[0]].tree.read(machine.layers[0].entries[b"f0"], 0, 10)
    machine.filesystem.check(machine.mountpoints[0])
    assert source.checks == before + 1, "what is fetched is one, too"
    lease.close()
    machine.filesystem.close()


@pytest.mark.seed(9)
def test_a_blob_that_is_gone_is_not_asked_for_again_and_again(machine: Machine) -> None:
    machine.mount()
    source = machine.plugin.sources[machine.layers[0].digest]
    before = source.checks
    machine.fail_source(0, NotFoundError("404"))
    with pytest.raises(NotFoundError):
        machine.filesystem.check(machine.mountpoints[0])
    assert source.checks - before == 1


@pytest.mark.seed(9)
def test_a_late_prefetch_only_warns(machine: Machine) -> None:
    gate = machine.mount_with_slow_prefetch()
    machine.filesystem.check(machine.mountpoints[0])
    gate.set()


def test_a_check_need_not_wait_for_a_prefetch(tmp_path: Path) -> None:
    machine = Machine(tmp_path, msgspec.structs.replace(QUIET, prefetch=PrefetchSettings(timeout=1000.0)))
    gate = machine.mount_with_slow_prefetch()
    machine.filesystem.check(machine.mountpoints[0], wait=False)
    assert not gate.is_set()
    gate.set()
    machine.filesystem.check(machine.mountpoints[0])
    machine.filesystem.close()


@pytest.mark.seed(9)
def test_a_layer_that_is_whole_needs_no_registry(machine: Machine) -> None:
    machine.plugin.plan = lambda layer: PrefetchPlan((ByteRange(0, layer.descriptor.size),))
    machine.mount()
    until(lambda: "completed" in machine.kinds())
    machine.fail_source(0, UnavailableError("the cable was pulled"))
    machine.filesystem.check(machine.mountpoints[0])


@pytest.mark.seed(18)
def test_every_waiter_is_woken_when_a_prefetch_ends(machine: Machine) -> None:
    gate = machine.mount_with_slow_prefetch()
    layer = machine.filesystem.layers.lend(REFERENCE, machine.plugin.descriptors()[0]).layer
    wait = machine.filesystem.layers.prefetcher.wait
    with ThreadPoolExecutor(8) as threads:
        assert [threads.submit(wait, layer, 0.001).result() for _ in range(4)] == [False] * 4
        waiting = [threads.submit(wait, layer, 20) for _ in range(8)]
        gate.set()
        assert all(each.result(20) for each in waiting)
    assert wait(layer, 0)


@pytest.mark.seed(8)
def test_mounts_checks_and_prefetches_pause_background_work(machine: Machine) -> None:
    busy: list[bool] = []
    scheduler = machine.filesystem.layers.scheduler
    machine.plugin.before_mount = lambda: busy.append(scheduler.busy)
    machine.plugin.before_open = lambda _: busy.append(scheduler.busy)
    machine.mount()
    source = machine.plugin.sources[machine.layers[0].digest]

    def note(_: object) -> None:
        busy.append(scheduler.busy)

    source.fail = note
    machine.filesystem.check(machine.mountpoints[0])
    source.on_piece = note
    entry = machine.layers[0].entries[b"f0"]
    machine.plugin.mounts[machine.mountpoints[0]].tree.read(entry, 0, 10)
    assert len(busy) >= 4
    assert all(busy)


@pytest.mark.seed(17)
def test_unmounting_unregisters_and_gives_the_layer_back(machine: Machine) -> None:
    machine.mount()
    machine.filesystem.unmount(machine.mountpoints[0])
    assert machine.filesystem.mounts() == ()
    assert machine.plugin.mounts[machine.mountpoints[0]].gone.is_set()
    assert "unmounted" in machine.kinds()
    with pytest.raises(NotMountedError):
        machine.filesystem.unmount(machine.mountpoints[0])
    machine.mount()


@pytest.mark.seed(17)
def test_a_mount_in_use_stays_unless_forced(machine: Machine) -> None:
    machine.mount()
    machine.plugin.mounts[machine.mountpoints[0]].busy = True
    with pytest.raises(MountError, match="in use"):
        machine.filesystem.unmount(machine.mountpoints[0])
    assert machine.mountpoints[0] in [each.mountpoint for each in machine.filesystem.mounts()]
    machine.filesystem.unmount(machine.mountpoints[0], force=True)
    assert machine.filesystem.mounts() == ()


def test_waiting_for_a_mount_ends_when_it_is_gone(machine: Machine) -> None:
    machine.mount()
    assert not machine.filesystem.wait(machine.mountpoints[0], timeout=0.001)
    machine.filesystem.unmount(machine.mountpoints[0])
    with pytest.raises(NotMountedError):
        machine.filesystem.wait(machine.mountpoints[0])


def test_a_mountpoint_is_used_once(machine: Machine) -> None:
    machine.mount()
    with pytest.raises(MountError, match="already mounted"):
        machine.mount()


def test_a_mountpoint_must_be_a_directory(machine: Machine) -> None:
    with pytest.raises(MountError, match="not a directory"):
        machine.filesystem.mount(machine.mountpoints[0] + "/nothing", machine.plugin.labels(0))


def test_a_mount_that_fails_leaves_nothing(machine: Machine) -> None:
    def fail() -> None:
        raise MountError("no /dev/fuse")

    machine.plugin.before_mount = fail
    with pytest.raises(MountError, match="no /dev/fuse"):
        machine.mount()
    assert machine.filesystem.mounts() == ()
    machine.plugin.before_mount = lambda: None
    machine.mount()


def test_a_label_that_promises_another_table_of_contents_is_refused(machine: Machine) -> None:
    with pytest.raises(VerificationError, match="table of contents"):
        machine.mount(0, **{TOC_DIGEST: sha256_digest(b"another")})
    assert machine.filesystem.mounts() == ()


def test_verification_is_skipped_only_where_the_operator_allows_it(machine: Machine, tmp_path: Path) -> None:
    labels = {name: value for name, value in machine.plugin.labels(0).items() if name != TOC_DIGEST}
    with pytest.raises(VerificationError):
        machine.filesystem.mount(machine.mountpoints[0], {**labels, SKIP_VERIFY: "true"})
    directory = tmp_path / "lenient"
    directory.mkdir()
    allowed = msgspec.structs.replace(QUIET, fetch=FetchSettings(allow_skip_verify=True))
    lenient = Machine(directory, allowed)
    lenient.filesystem.mount(lenient.mountpoints[0], {**labels, SKIP_VERIFY: "true"})
    lenient.filesystem.close()


def test_an_image_is_mounted_merged_or_one_layer_of_it(machine: Machine) -> None:
    machine.filesystem.mount_image(machine.mountpoints[0], REFERENCE)
    machine.filesystem.mount_image(machine.mountpoints[1], REFERENCE, layer=1)
    names = [sorted(machine.plugin.mounts[each].tree.tree.root.children or {}) for each in machine.mountpoints[:2]]
    assert names == [[b"f0", b"f1", b"f2"], [b"f1"]]
    with pytest.raises(MountError, match=r"layers 0 to 2; there is no layer 3"):
        machine.filesystem.mount_image(machine.mountpoints[2], REFERENCE, layer=3)


def test_state_and_disk_usage_grow_with_what_is_read(machine: Machine) -> None:
    machine.mount()
    mountpoint = machine.mountpoints[0]
    assert machine.filesystem.disk_usage(mountpoint) == 0
    tree = machine.plugin.mounts[mountpoint].tree
    tree.read(machine.layers[0].entries[b"f0"], 0, 3000)
    ((state,),) = [mount.layers for mount in machine.filesystem.mounts() if mount.mountpoint == mountpoint]
    assert machine.filesystem.disk_usage(mountpoint) == 3000
    assert 0 < state.fetched <= state.size
    (mount,) = machine.filesystem.mounts()
    assert (mount.mountpoint, mount.frontend, mount.layers) == (mountpoint, "recorded", (state,))


def test_the_state_counts_what_another_process_left_in_the_cache(tmp_path: Path) -> None:
    first, second = Machine(tmp_path), Machine(tmp_path / "second")
    second.plugin.caches = first.plugin.caches
    second.filesystem.close()
    second.filesystem = Filesystem(SyntheticProgram(second.plugin, QUIET))  # type: ignore[arg-type]
    try:
        first.mount()
        first.plugin.mounts[first.mountpoints[0]].tree.read(first.layers[0].entries[b"f0"], 0, 3000)
        second.mount()
        (mount,) = second.filesystem.mounts()
        assert mount.layers[0].fetched == mount.layers[0].size
        assert mount.layers[0].network_bytes < mount.layers[0].size
    finally:
        first.filesystem.close()
        second.filesystem.close()


def test_closing_unmounts_what_is_in_use_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.mount()
    machine.plugin.mounts[machine.mountpoints[0]].busy = True
    machine.filesystem.close()
    assert machine.plugin.mounts[machine.mountpoints[0]].gone.is_set()
    assert all(source.closed for source in machine.plugin.sources.values() if source.asked)


def test_closing_leaves_mounts_that_can_outlive_the_process(machine: Machine) -> None:
    machine.mount(0)
    machine.mount(1)
    kept, other = (machine.plugin.mounts[mountpoint] for mountpoint in machine.mountpoints[:2])
    kept.leave = lambda: True  # type: ignore[method-assign]
    machine.filesystem.close(leave=True)
    assert not kept.wait(0)
    assert other.wait(0)
