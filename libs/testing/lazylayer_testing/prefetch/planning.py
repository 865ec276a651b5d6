"""Checks of every `lazylayer_plan_prefetch`: part of the conformance kit for prefetch policies."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise

import pytest

from lazylayer.api.layers import PrefetchPlan
from lazylayer.api.opened import OpenedLayer
from lazylayer.errors import LazylayerError, UnavailableError
from lazylayer_testing.prefetch.asking import Policy, PolicyFixtures
from lazylayer_testing.prefetch.images import LABELS, LAYERS, make_layer
from lazylayer_testing.synthetic import MemoryImage, memory_image

__all__ = ["PlanChecks"]


class PlanChecks(PolicyFixtures):
    """The checks of plans for single layers."""

    @pytest.fixture
    def planner(self, asked: Policy) -> Policy:
        """The policy, if it plans for single layers."""
        asked.skip_without("lazylayer_plan_prefetch")
        return asked

    @pytest.fixture(params=list(LAYERS))
    def opened(self, request: pytest.FixtureRequest, policy: object) -> Iterator[MemoryImage]:
        """An open image of one layer, of each kind in turn."""
        with memory_image(make_layer(request.param), plugins=(policy,)) as image:
            image.forget_requests()  # the format made some to open the layers
            yield image

    def test_plan_stays_within_the_blob(self, planner: Policy, opened: MemoryImage) -> None:
        """Whatever the labels say, ranges are in the blob and not empty, and no byte is fetched twice."""
        layer = opened.image.layers[0]
        for labels in LABELS:
            _check(planner.plan(layer, labels), layer)

    def test_plan_does_not_depend_on_earlier_ones(self, planner: Policy, opened: MemoryImage) -> None:
        """The same layer and labels give the same plan."""
        layer = opened.image.layers[0]
        before = [planner.plan(layer, labels) for labels in LABELS]
        assert [planner.plan(layer, labels) for labels in LABELS] == before

    def test_plan_costs_few_requests(self, planner: Policy, opened: MemoryImage) -> None:
        """Planning makes no more requests than the layer has chunks, however often it is done."""
        layer = opened.image.layers[0]
        for labels in LABELS:
            planner.plan(layer, labels)
        assert opened.requests() <= len(layer.contents.chunks)

    def test_plan_in_many_threads(self, planner: Policy, opened: MemoryImage) -> None:
        """Threads that ask about the same layer get the same plans."""
        layer = opened.image.layers[0]
        expected = [planner.plan(layer, labels) for labels in LABELS]
        with ThreadPoolExecutor(8) as pool:
            plans = list(pool.map(lambda _: [planner.plan(layer, labels) for labels in LABELS], range(8)))
        assert plans == [expected] * 8

    def test_plan_survives_an_unreachable_registry(self, planner: Policy, opened: MemoryImage) -> None:
        """If the registry fails, the policy plans without it or raises a LazylayerError, and reads go on later."""
        layer = opened.image.layers[0]
        opened.fail(UnavailableError("the kit says so"))
        with suppress(LazylayerError):
            _check(planner.plan(layer, {}), layer)
        opened.fail(None)
        opened.check_files()


def _check(plan: PrefetchPlan | None, layer: OpenedLayer) -> None:
    if plan is None:
        return
    assert isinstance(plan.reason, str)
    size = layer.descriptor.size
    wrong = [each for each in plan.ranges if not 0 <= each.start < each.end <= size]
    assert not wrong, f"not within the {size} bytes of the blob"
    twice = [pair for pair in pairwise(sorted(plan.ranges)) if pair[0].end > pair[1].start]
    assert not twice, "fetched twice"
