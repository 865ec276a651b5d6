"""Plugins that are asked by their name: caches and frontends."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from lazylayer.api.mounting import Missing, MountOptions, Works
from lazylayer.api.settings import MountSettings, Settings
from lazylayer.errors import ConfigurationError, LazylayerError, MountError, PluginError, PluginRequiredError
from lazylayer.mounts.frontends import choose_frontend
from lazylayer.plugin.hooks import NamedPlugin
from lazylayer.plugin.records import PluginRecord
from lazylayer.plugin.registry import Plugins
from synthetic.hooks import any_of, hooks_of, plugin

ANY: Any = object()
MOUNT_OPTIONS = MountOptions()
CALLS: dict[str, Callable[[NamedPlugin], object]] = {
    "open_cache": lambda named: named.open_cache("chunks"),
    "probe_frontend": lambda named: named.probe_frontend(),
    "mount_tree": lambda named: named.mount_tree(ANY, "/mnt", MOUNT_OPTIONS),
}
EXPECTED = {
    "open_cache": "lazylayer.api.cache.Cache",
    "probe_frontend": "lazylayer.api.mounting.Works or lazylayer.api.mounting.Missing",
    "mount_tree": "lazylayer.api.mounting.MountedTree",
}


class Options(msgspec.Struct, frozen=True):
    size: int = 1


@pytest.mark.parametrize("name", CALLS)
class TestAnswers:
    def test_only_the_named_one_is_asked(self, name: str) -> None:
        answer = any_of(name)
        hooks = hooks_of(first=plugin(**{name: lambda: 1 / 0}), mine=plugin(**{name: lambda: answer}))
        assert CALLS[name](hooks.of("mine")) is answer

    def test_it_is_given_its_options(self, name: str) -> None:
        seen: list[object] = []

        def implementation(options: object) -> object:
            seen.append(options)
            return any_of(name)

        records = PluginRecord("other", options=Options(1)), PluginRecord("mine", options=Options(2))
        hooks = hooks_of(*records, mine=plugin(**{name: implementation}))
        CALLS[name](hooks.of("mine"))
        assert seen == [Options(2)]

    @pytest.mark.parametrize(
        ("answer", "said"), [({}, "it returned dict; expected "), ("", "it returned str; expected ")]
    )
    def test_wrong_answer_names_plugin_hook_and_type(self, name: str, answer: object, said: str) -> None:
        with pytest.raises(PluginError) as error:
            CALLS[name](hooks_of(mine=plugin(**{name: lambda: answer})).of("mine"))
        assert str(error.value) == f"plugin mine, lazylayer_{name}: {said}{EXPECTED[name]}"

    def test_no_answer_is_an_error(self, name: str) -> None:
        with pytest.raises(PluginError, match=f"plugin mine, lazylayer_{name}: it returned nothing; expected"):
            CALLS[name](hooks_of(mine=plugin(**{name: lambda: None})).of("mine"))

    def test_failure_names_plugin_version_and_hook(self, name: str) -> None:
        record = PluginRecord("mine", "lazylayer-mine", "1.2")
        hooks = hooks_of(record, mine=plugin(**{name: lambda: dict[str, int]()["lost"]}))
        with pytest.raises(PluginError) as error:
            CALLS[name](hooks.of("mine"))
        assert str(error.value) == f"plugin mine (lazylayer-mine 1.2), lazylayer_{name}: KeyError: 'lost'"
        assert isinstance(error.value.__cause__, KeyError)

    def test_own_errors_go_up_as_they_are(self, name: str) -> None:
        failure = LazylayerError("no")

        def fail() -> None:
            raise failure

        with pytest.raises(LazylayerError) as error:
            CALLS[name](hooks_of(mine=plugin(**{name: fail})).of("mine"))
        assert error.value is failure


SKIPPED = PluginRecord("mine", "d", "1", "skipped", "no /dev/x")
WITHOUT = PluginRecord("mine", "d", "1")


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (
            (),
            "it is not installed; install its distribution, or choose a plugin that `lazylayer plugins list` shows",
        ),
        ((SKIPPED,), "no /dev/x"),
        ((WITHOUT,), "it does not have the hook {hook} (no installed plugin has {hook})"),
    ],
)
class TestUnusable:
    def test_cache(self, records: tuple[PluginRecord, ...], reason: str) -> None:
        with pytest.raises(PluginRequiredError) as error:
            hooks_of(*records).of("mine").open_cache("ranges")
        assert f"cache.ranges names it, but {reason.format(hook='lazylayer_open_cache')}" in str(error.value)

    def test_probe(self, records: tuple[PluginRecord, ...], reason: str) -> None:
        found = hooks_of(*records).of("mine").probe_frontend()
        assert str(found).startswith(reason.format(hook="lazylayer_probe_frontend"))

    def test_mount(self, records: tuple[PluginRecord, ...], reason: str) -> None:
        with pytest.raises(MountError) as error:
            hooks_of(*records).of("mine").mount_tree(ANY, "/mnt", MOUNT_OPTIONS)
        said = reason.format(hook="lazylayer_mount_tree")
        assert str(error.value).startswith(f"/mnt: cannot mount with mine: {said}")


def test_missing_says_what_and_what_to_do() -> None:
    assert str(Missing("no /dev/x", "modprobe x")) == "no /dev/x; modprobe x"
    assert str(Missing("no /dev/x")) == "no /dev/x"
    assert Works() == Works()


class TestPreference:
    def plugins(self, hook: str, **preferences: int) -> Plugins:
        plugins = Plugins((), {})
        plugins.configure(Settings())
        for name in reversed(preferences):
            made: Any = plugin(**{hook: lambda: any_of(hook)})
            made.preference = preferences[name]
            plugins.add(name, made)
        return plugins

    def test_preferred_first_then_the_order_of_asking(self) -> None:
        hooks = self.plugins("open_cache", a=0, b=5, c=0, d=9, e=-1).hooks()
        assert hooks.candidates("lazylayer_open_cache") == ["d", "b", "a", "c", "e"]

    def test_auto_takes_the_preferred_cache_and_a_name_that_one(self) -> None:
        hooks = self.plugins("open_cache", a=1, b=2).hooks()
        assert hooks.choose_cache("auto").name == "b"
        assert hooks.choose_cache("a").name == "a"

    def test_no_cache_is_an_error_that_says_why(self) -> None:
        with pytest.raises(ConfigurationError, match="no cache plugin is usable; no installed plugin has lazylayer_op"):
            hooks_of().choose_cache("auto")
        with pytest.raises(ConfigurationError, match=r"no cache plugin is usable; mine \(no /dev/x\)"):
            hooks_of(SKIPPED).choose_cache("auto")

    @pytest.mark.parametrize(
        ("settings", "chosen"),
        [
            (MountSettings(), "best"),
            (MountSettings(prefer=("other", "best")), "other"),
            (MountSettings(prefer=("missing", "best")), "best"),
            (MountSettings(frontend="other"), "other"),
        ],
    )
    def test_frontend(self, settings: MountSettings, chosen: str) -> None:
        plugins = Plugins((), {})
        plugins.configure(Settings())
        for name, preference in (("other", 1), ("best", 3), ("broken", 9)):
            found = Missing("no device", "buy one") if name == "broken" else Works()
            made: Any = plugin(probe_frontend=functools.partial(copy.copy, found), mount_tree=lambda: None)
            made.preference = preference
            plugins.add(name, made)
        assert choose_frontend(plugins.hooks(), settings) == chosen

    def test_no_frontend_tells_every_reason(self) -> None:
        hooks = hooks_of(mine=plugin(probe_frontend=lambda: Missing("no device", "buy one"), mount_tree=lambda: None))
        with pytest.raises(MountError, match="no frontend works on this machine: mine: no device; buy one"):
            choose_frontend(hooks, MountSettings())
        with pytest.raises(MountError, match="no frontend plugin is usable"):
            choose_frontend(hooks_of(), MountSettings())
