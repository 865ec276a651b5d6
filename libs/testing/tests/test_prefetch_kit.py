"""The kit for prefetch policies passes policies that are right, and each check fails for a policy that is wrong."""

from __future__ import annotations

import inspect
import itertools
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from lazylayer import hookimpl
from lazylayer.api.byteranges import ByteRange
from lazylayer.api.layers import PrefetchPlan
from lazylayer.api.opened import OpenedImage, OpenedLayer
from lazylayer.errors import LazylayerError
from lazylayer_testing.prefetch import PrefetchConformance
from lazylayer_testing.prefetch.asking import Policy
from lazylayer_testing.prefetch.images import CONFIGS, LAYERS, make_layer, make_layers
from lazylayer_testing.synthetic import SyntheticLayer, memory_image, until_quiet

ENOUGH = threading.Event()
"""Ends what broken policies would do forever, once their check has failed."""


class Planner:
    """Plans the first half of the blob. Broken ones override `ranges`."""

    @hookimpl
    def lazylayer_plan_prefetch(self, layer: OpenedLayer, labels: Mapping[str, str]) -> PrefetchPlan | None:
        return PrefetchPlan(tuple(self.ranges(layer, labels)), "the first half")

    def ranges(self, layer: OpenedLayer, labels: Mapping[str, str]) -> Iterator[ByteRange]:
        yield ByteRange(0, layer.descriptor.size // 2)


class Fetcher:
    """Fetches the shell, which it looks into first. Broken ones override `fetch`."""

    @hookimpl
    def lazylayer_prefetch_image(self, image: OpenedImage, labels: Mapping[str, str]) -> None:
        self.fetch(image, labels)

    def fetch(self, image: OpenedImage, labels: Mapping[str, str]) -> None:
        shell = image.find(b"/bin/sh")
        if shell is not None and shell.read(0, 4) == b"\x7fELF":
            image.fetch([shell])


class Both(Planner, Fetcher):
    pass


class TestPlanner(PrefetchConformance):
    @pytest.fixture
    def policy(self) -> object:
        return Planner()


class TestFetcher(PrefetchConformance):
    @pytest.fixture
    def policy(self) -> object:
        return Fetcher()


class TestBoth(PrefetchConformance):
    @pytest.fixture
    def policy(self) -> object:
        return Both()


# --- broken plans ------------------------------------------------------------------------------------


class PlansPastTheEnd(Planner):
    def ranges(self, layer: OpenedLayer, labels: Mapping[str, str]) -> Iterator[ByteRange]:
        yield ByteRange(0, layer.descriptor.size + 1)


class PlansTwice(Planner):
    def ranges(self, layer: OpenedLayer, labels: Mapping[str, str]) -> Iterator[ByteRange]:
        yield ByteRange(5, 10)
        yield ByteRange(0, 6)


class BelievesNumbers(Planner):
    def ranges(self, layer: OpenedLayer, labels: Mapping[str, str]) -> Iterator[ByteRange]:
        if any(int(each) < 0 for each in labels.values()):
            yield ByteRange(0, 1)


class ChangesLabels(Planner):
    def ranges(self, layer: OpenedLayer, labels: Mapping[str, str]) -> Iterator[ByteRange]:
        labels.pop("containerd.io/snapshot/remote/stargz.prefetch", "")  # type: ignore[attr-defined]
        yield ByteRange(0, 1)


class PlansLessEachTime(Planner):
    def __init__(self) -> None:
        self.sizes = itertools.count(1)

    def ranges(self, layer: OpenedLayer, labels: Mapping[str, str]) -> Iterator[ByteRange]:
        yield ByteRange(0, next(self.sizes) % 7 + 1)


class SharesItsLabels(Planner):
    """Keeps what it works on in itself, so that threads disturb each other."""

    labels: Mapping[str, str] = {}

    def ranges(self, layer: OpenedLayer, labels: Mapping[str, str]) -> Iterator[ByteRange]:
        self.labels = labels
        threading.Event().wait(0.001)
        if not self.labels:
            yield ByteRange(0, 1)


class ReadsForEver(Planner):
    def ranges(self, layer: OpenedLayer, labels: Mapping[str, str]) -> Iterator[ByteRange]:
        files = [entry for _, entry in layer.tree.walk() if entry.size]
        while files and not ENOUGH.is_set():
            try:
                layer.read(files[-1], 0, 1)
            except LazylayerError:
                continue
            files.pop()
        yield ByteRange(0, 1)


class TakesTroubleForDefects(Planner):
    def ranges(self, layer: OpenedLayer, labels: Mapping[str, str]) -> Iterator[ByteRange]:
        try:
            for _, entry in layer.tree.walk():
                layer.read(entry, 0, 1)
        except LazylayerError as error:
            raise RuntimeError("no answer") from error
        yield ByteRange(0, 1)


# --- broken fetching ---------------------------------------------------------------------------------


class BelievesConfigs(Fetcher):
    def fetch(self, image: OpenedImage, labels: Mapping[str, str]) -> None:
        for word in image.resolved.config.config.get("Cmd", []):
            image.find(word.encode())


class FollowsForEver(Fetcher):
    def fetch(self, image: OpenedImage, labels: Mapping[str, str]) -> None:
        config: Any = image.resolved.config.config
        while config.get("Cmd") == ["/app/endless"] and not ENOUGH.wait(0.1):
            pass


class Insists(Fetcher):
    def fetch(self, image: OpenedImage, labels: Mapping[str, str]) -> None:
        shell = image.find(b"/bin/sh")
        for _ in range(1000 if shell is not None else 0):
            try:
                image.fetch([shell] if shell is not None else [])
            except LazylayerError:
                continue
            return


class WantsMoreEachTime(Fetcher):
    def __init__(self) -> None:
        self.numbers = itertools.count()

    def fetch(self, image: OpenedImage, labels: Mapping[str, str]) -> None:
        found = image.find(b"/many/%d" % next(self.numbers))
        image.fetch([found] if found is not None else [])


class CountsLabels(Fetcher):
    def fetch(self, image: OpenedImage, labels: Mapping[str, str]) -> None:
        sum(int(each) for each in labels.values())


class NeedsLayers(Fetcher):
    def fetch(self, image: OpenedImage, labels: Mapping[str, str]) -> None:
        image.layers[0].fetch([])


BROKEN: dict[type[Planner] | type[Fetcher], str] = {
    PlansPastTheEnd: "test_plan_stays_within_the_blob",
    PlansTwice: "test_plan_stays_within_the_blob",
    BelievesNumbers: "test_plan_stays_within_the_blob",
    ChangesLabels: "test_plan_stays_within_the_blob",
    PlansLessEachTime: "test_plan_does_not_depend_on_earlier_ones",
    SharesItsLabels: "test_plan_in_many_threads",
    ReadsForEver: "test_plan_survives_an_unreachable_registry",
    TakesTroubleForDefects: "test_plan_survives_an_unreachable_registry",
    BelievesConfigs: "test_prefetch_of_any_config_ends",
    FollowsForEver: "test_prefetch_of_any_config_ends",
    WantsMoreEachTime: "test_nothing_is_fetched_twice",
    Insists: "test_prefetch_survives_an_unreachable_registry",
    CountsLabels: "test_labels_do_no_harm",
    NeedsLayers: "test_image_of_nothing",
}
"""Each broken policy, and the check that must fail for it."""

IMAGES: Mapping[str, list[tuple[list[SyntheticLayer], Mapping[str, Any]]]] = {
    "opened": [([make_layer(name)], {}) for name in LAYERS],
    "image": [(make_layers(), config) for config in CONFIGS.values()],
    "": [([], {})],
}
"""The images that each fixture of the kit opens, in turn."""


def fails(plugin: object, name: str) -> bool:
    """Run a check on a policy as pytest would, and return True if it fails for any image."""
    check = getattr(PrefetchConformance(), name)
    wanted = inspect.signature(check).parameters
    scene = next((each for each in ("opened", "image") if each in wanted), "")
    for layers, config in IMAGES[scene]:
        policy = Policy(plugin, deadline=0.5)
        with memory_image(*layers, config=config, plugins=(plugin,)) as image:
            image.forget_requests()
            offered = {"planner": policy, "fetcher": policy, "policy": plugin, "opened": image, "image": image}
            try:
                check(**{each: offered[each] for each in wanted})
            except Exception:
                return True
            finally:
                ENOUGH.set()
                until_quiet()
                ENOUGH.clear()
    return False


@pytest.mark.parametrize(("broken", "check"), BROKEN.items(), ids=lambda each: getattr(each, "__name__", each))
def test_broken_policy_is_caught(broken: type[Planner] | type[Fetcher], check: str) -> None:
    assert fails(broken(), check)


def test_each_check_was_seen_to_fail() -> None:
    checks = {name for name in dir(PrefetchConformance) if name.startswith("test_")}
    assert checks - set(BROKEN.values()) == {"test_plan_costs_few_requests"}, "the engine sees to that, for policies"


def test_author_who_forgot_policy_is_told() -> None:
    class TestMine(PrefetchConformance):
        pass

    with pytest.raises(NotImplementedError, match="TestMine must override the fixture policy"):
        inspect.unwrap(TestMine.policy)(TestMine())
