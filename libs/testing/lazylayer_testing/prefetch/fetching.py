"""Checks of every `lazylayer_prefetch_image`: part of the conformance kit for prefetch policies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest

from lazylayer.errors import LazylayerError, UnavailableError
from lazylayer_testing.prefetch.asking import Policy, PolicyFixtures
from lazylayer_testing.prefetch.images import CONFIGS, LABELS, make_layers
from lazylayer_testing.synthetic import MemoryImage, memory_image, until_quiet

__all__ = ["ImageChecks"]


class ImageChecks(PolicyFixtures):
    """The checks of prefetching for whole images."""

    @pytest.fixture
    def fetcher(self, asked: Policy) -> Policy:
        """The policy, if it prefetches for whole images."""
        asked.skip_without("lazylayer_prefetch_image")
        return asked

    @pytest.fixture(params=list(CONFIGS))
    def image(self, request: pytest.FixtureRequest, policy: object) -> Iterator[MemoryImage]:
        """An open image with each of the configs in turn."""
        with memory_image(*make_layers(), config=CONFIGS[request.param], plugins=(policy,)) as image:
            image.forget_requests()  # the format made some to open the layers
            yield image
            until_quiet()

    def test_prefetch_of_any_config_ends(self, fetcher: Policy, image: MemoryImage) -> None:
        """Whatever a config says, the policy returns, raises nothing, and all files read as before."""
        fetcher.prefetch(image.image)
        until_quiet()
        image.check_files()

    def test_nothing_is_fetched_twice(self, fetcher: Policy, image: MemoryImage) -> None:
        """A policy that is asked again finds all that it wants, and makes no request."""
        fetcher.prefetch(image.image)
        until_quiet()
        image.forget_requests()
        fetcher.prefetch(image.image)
        until_quiet()
        assert image.requests() == 0

    def test_labels_do_no_harm(self, fetcher: Policy, policy: object) -> None:
        """The labels of the mount may be anything."""
        for labels in LABELS:
            with memory_image(*make_layers(), config=CONFIGS["a program"], plugins=(policy,)) as image:
                fetcher.prefetch(image.image, labels)
                until_quiet()

    def test_prefetch_survives_an_unreachable_registry(self, fetcher: Policy, image: MemoryImage) -> None:
        """If every request fails, the policy ends, at most with a LazylayerError, and reads go on later.

        It does not insist: it makes no more requests than there are chunks.
        """
        image.fail(UnavailableError("the kit says so"))
        with suppress(LazylayerError):
            fetcher.prefetch(image.image)
        until_quiet()
        assert image.requests() <= sum(len(layer.contents.chunks) for layer in image.image.layers)
        image.fail(None)
        image.check_files()

    def test_image_of_nothing(self, fetcher: Policy, policy: object) -> None:
        """An image without layers has nothing to fetch."""
        for config in CONFIGS.values():
            with memory_image(config=config, plugins=(policy,)) as image:
                fetcher.prefetch(image.image)
