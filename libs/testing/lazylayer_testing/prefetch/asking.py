"""Ask a prefetch policy as the core does: part of the conformance kit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pluggy
import pytest

from lazylayer.api.layers import PrefetchPlan
from lazylayer.api.opened import OpenedImage, OpenedLayer
from lazylayer.plugin.registry import make_manager

__all__ = ["Policy", "PolicyFixtures"]


class Policy:
    """A policy, with its hooks as methods. They raise what the plugin raises, and AssertionError after `deadline` s."""

    def __init__(self, plugin: object, deadline: float = 60.0) -> None:
        self.plugin = plugin
        self.deadline = deadline
        self._manager = make_manager()
        self._manager.register(plugin, "policy")

    def skip_without(self, hook: str) -> None:
        """Skip the test if the plugin does not have a hook."""
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        if not caller.get_hookimpls():
            pytest.skip(f"the policy does not implement {hook}")

    def plan(self, layer: OpenedLayer, labels: Mapping[str, str]) -> PrefetchPlan | None:
        """Return the plan for a layer. The labels that the policy is given cannot be changed."""
        given = MappingProxyType(dict(labels))
        answer = self._finish(lambda: self._manager.hook.lazylayer_plan_prefetch(layer=layer, labels=given))
        assert answer is None or isinstance(answer, PrefetchPlan)
        return answer

    def prefetch(self, image: OpenedImage, labels: Mapping[str, str] = MappingProxyType({})) -> None:
        """Let the policy prefetch an image."""
        self._finish(lambda: self._manager.hook.lazylayer_prefetch_image(image=image, labels=labels))

    def _finish(self, work: Callable[[], Any]) -> Any:
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append((work(), None))
            except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
                outcome.append((None, error))

        thread = threading.Thread(target=run, name="prefetch-check", daemon=True)
        thread.start()
        thread.join(self.deadline)
        assert outcome, f"the policy did not return within {self.deadline:g} s"
        answer, error = outcome[0]
        if error is not None:
            raise error
        return answer


class PolicyFixtures:
    """The fixtures that all checks of policies use."""

    @pytest.fixture
    def policy(self) -> object:
        """Override this: return the plugin, configured."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture policy")

    @pytest.fixture
    def asked(self, policy: object) -> Iterator[Policy]:
        """The policy, ready to be asked."""
        yield Policy(policy)
