"""Plugins are found, chosen, ordered and loaded: with distributions on disk, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lazylayer.api.settings import PluginsSettings, Settings
from lazylayer.cli.log import package_of
from lazylayer.configuration.loading import load_configuration
from lazylayer.errors import ConfigurationError, LazylayerError, PluginRequiredError
from lazylayer.plugin.records import PluginRecord
from lazylayer.plugin.registry import Plugins
from lazylayer.plugin.selection import find_entry_points
from lazylayer.program import Program, find_problems
from synthetic.distributions import install

Install = Callable[..., None]

CACHE = """
from lazylayer import hookimpl

from lazylayer_testing.synthetic import DictCache

@hookimpl
def lazylayer_open_cache():
    cache = DictCache()
    cache.of = __name__
    return cache
"""
OPTIONS = """
import msgspec
from lazylayer import hookimpl

class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int = 1

class Plugin:
    @hookimpl
    def lazylayer_configure(self, options):
        self.options = options
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs distributions for one test. Other plugins of this environment are there too."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(distribution: str, entry_points: Mapping[str, str], modules: Mapping[str, str] | None = None) -> None:
        install(tmp_path, distribution, entry_points, modules)

    yield add
    for name in set(sys.modules) - before:
        if name.startswith("tst_"):
            del sys.modules[name]


def load(*enabled: str, disabled: tuple[str, ...] = (), required: tuple[str, ...] = ()) -> Plugins:
    return Plugins.load(PluginsSettings(enabled, disabled, required))


def record(plugins: Plugins, name: str) -> PluginRecord:
    found = plugins.record(name)
    assert found is not None
    return found


def asked(plugins: Plugins) -> list[str]:
    """The plugins that answer to `lazylayer_open_cache`, first asked first."""
    implementations = plugins.manager.hook.lazylayer_open_cache.get_hookimpls()
    return [each.plugin_name for each in reversed(implementations)]


class TestFinding:
    def test_entry_points_are_listed_without_import(self, installed: Install) -> None:
        installed("tst-two", {"tst_b": "tst_nowhere", "tst_a": "tst_nowhere:Class"})
        found = [each for each in find_entry_points() if each.name.startswith("tst_")]
        assert [each.name for each in found] == ["tst_a", "tst_b"]
        assert found[0].dist is not None
        assert found[0].dist.name == "tst-two"

    def test_what_was_just_installed_is_found(self, installed: Install) -> None:
        assert not any(each.name == "tst_new" for each in find_entry_points())
        installed("tst-new", {"tst_new": "tst_new"}, {"tst_new": CACHE})
        assert record(load(), "tst_new").status == "ok"

    def test_record(self, installed: Install) -> None:
        installed("tst-one", {"tst_one": "tst_one"}, {"tst_one": CACHE})
        assert record(load("tst_one"), "tst_one") == PluginRecord(
            "tst_one", "tst-one", "1.0", "ok", "", ("lazylayer_open_cache",), "tst_one"
        )

    def test_own_plugins_are_named_by_one_rule(self) -> None:
        ours = [each for each in find_entry_points() if each.dist and each.dist.name.startswith("lazylayer-")]
        assert ours
        for each in ours:
            assert each.dist is not None
            assert each.dist.name == f"lazylayer-{each.name.replace('_', '-')}"
            assert each.module.partition(".")[0] == f"lazylayer_{each.name}"


class TestChoosing:
    @pytest.fixture(autouse=True)
    def three(self, installed: Install) -> None:
        for letter in "abc":
            name = f"cache_tst_{letter}"
            installed(f"tst-{letter}", {name: f"tst_{letter}"}, {f"tst_{letter}": CACHE})

    def configured(self, *enabled: str, disabled: tuple[str, ...] = ()) -> list[str]:
        plugins = load(*enabled, disabled=disabled)
        plugins.configure(Settings())
        return [name.removeprefix("cache_tst_") for name in asked(plugins) if name.startswith("cache_tst_")]

    def test_all_by_name(self) -> None:
        assert self.configured() == ["a", "b", "c"]

    def test_enabled_gives_the_order(self) -> None:
        assert self.configured("cache_tst_c", "cache_tst_a") == ["c", "a"]
        assert self.configured("cache_tst_c", "cache_tst_a", "cache_tst_c") == ["c", "a"]

    def test_star_is_the_rest(self) -> None:
        assert self.configured("cache_tst_c", "*") == ["c", "a", "b"]
        assert self.configured("*", "cache_tst_a") == ["b", "c", "a"]

    def test_disabled_wins(self) -> None:
        assert self.configured("cache_tst_a", "cache_tst_b", disabled=("cache_tst_a",)) == ["b"]

    def test_disabled_are_not_imported(self) -> None:
        plugins = load("cache_tst_a", "cache_tst_b", disabled=("cache_tst_b",))
        assert "tst_a" in sys.modules
        assert "tst_b" not in sys.modules
        assert "tst_c" not in sys.modules
        assert record(plugins, "cache_tst_b").status == "disabled"
        assert record(plugins, "cache_tst_b").reason == "it is disabled: plugins.disabled names it"
        assert record(plugins, "cache_tst_c").reason == "it is disabled: plugins.enabled does not name it"

    def test_records_are_in_the_order_of_asking(self) -> None:
        plugins = load("cache_tst_c", "cache_tst_a", disabled=("cache_tst_b",))
        assert [each.name for each in plugins.records][:2] == ["cache_tst_c", "cache_tst_a"]

    def test_packages_are_those_imported(self) -> None:
        loaded = load("cache_tst_c", "cache_tst_a")
        assert [package_of(each) for each in loaded.records if each.status == "ok"] == ["tst_c", "tst_a"]


class TestDuplicates:
    @pytest.fixture(autouse=True)
    def twice(self, installed: Install) -> None:
        installed("tst-one", {"cache_tst": "tst_one"}, {"tst_one": CACHE})
        installed("tst-between", {"cache_tst_between": "tst_between"}, {"tst_between": CACHE})
        installed("tst-two", {"cache_tst": "tst_two"}, {"tst_two": CACHE})

    def test_neither_is_loaded(self) -> None:
        plugins = load()
        both = [each for each in plugins.records if each.name == "cache_tst"]
        assert [each.distribution for each in both] == ["tst-one", "tst-two"]
        assert {each.status for each in both} == {"error"}
        assert both[0].reason == (
            "2 distributions offer a plugin of this name: tst-one 1.0, tst-two 1.0; uninstall all but one, "
            'or choose one with plugins.enabled = ["cache_tst@tst-one", "*"]'
        )
        assert not {"tst_one", "tst_two"} & set(sys.modules)
        assert record(plugins, "cache_tst_between").status == "ok"

    @pytest.mark.parametrize(
        ("enabled", "disabled"),
        [(("cache_tst@tst-two",), ()), (("cache_tst@tst_two", "*"), ()), ((), ("cache_tst@tst-one",))],
    )
    def test_one_can_be_chosen(self, enabled: tuple[str, ...], disabled: tuple[str, ...]) -> None:
        plugins = load(*enabled, disabled=disabled)
        assert record(plugins, "cache_tst").distribution == "tst-two"
        assert record(plugins, "cache_tst").status == "ok"
        others = [each for each in plugins.records if each.distribution == "tst-one"]
        assert [each.status for each in others] == ["disabled"]
        plugins.require("cache_tst", "plugins.required")


class TestTrouble:
    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            ("import nothing_of_this_name", "import failed: ModuleNotFoundError: No module named 'nothing_of_this"),
            ("1 / 0", "loading failed: ZeroDivisionError: division by zero"),
            ("assert False, 'no'", "loading failed: AssertionError: no"),
            ("raise SystemExit('bye')", "loading failed: SystemExit: bye"),
            ("def broken(:", "loading failed: SyntaxError"),
            ("x = 1", "it implements no hook of lazylayer"),
            (
                "from lazylayer import hookimpl\n@hookimpl\ndef lazylayer_from_tomorrow(x): ...",
                "it implements lazylayer_from_tomorrow, a hook that this version",
            ),
            (
                "from lazylayer import hookimpl\n@hookimpl\ndef lazylayer_open_cache(purpose, colour): ...",
                "lazylayer_open_cache does not take colour: the hook has (purpose, options)",
            ),
            ("def lazylayer_open_cache(): ...", "lazylayer_open_cache: not marked with lazylayer.hookimpl"),
            ("from lazylayer.errors import MountError\nraise MountError('odd')", "loading failed: MountError: odd"),
        ],
    )
    def test_bad_plugin_is_recorded_and_others_work(self, installed: Install, source: str, reason: str) -> None:
        installed("tst-bad", {"tst_bad": "tst_bad"}, {"tst_bad": source + "\n"})
        installed("tst-good", {"cache_tst": "tst_good"}, {"tst_good": CACHE})
        plugins = load("tst_bad", "cache_tst")
        plugins.configure(Settings())
        assert record(plugins, "tst_bad").status == "error"
        assert reason in record(plugins, "tst_bad").reason
        assert record(plugins, "tst_bad").distribution == "tst-bad"
        assert asked(plugins) == ["cache_tst"]

    def test_missing_attribute(self, installed: Install) -> None:
        installed("tst-bad", {"tst_bad": "tst_bad:Missing"}, {"tst_bad": CACHE})
        assert "AttributeError" in record(load("tst_bad"), "tst_bad").reason

    def test_bad_name(self, installed: Install) -> None:
        installed("tst-bad", {"Tst.Bad": "tst_bad"}, {"tst_bad": CACHE})
        assert "the name of a plugin is" in record(load(), "Tst.Bad").reason

    def test_optional_hooks_may_be_unknown(self, installed: Install) -> None:
        source = CACHE + "@hookimpl(optionalhook=True)\ndef lazylayer_from_tomorrow(x): ...\n"
        installed("tst-new", {"cache_tst": "tst_new"}, {"tst_new": source})
        plugins = load("cache_tst")
        plugins.configure(Settings())
        assert record(plugins, "cache_tst").hooks == ("lazylayer_open_cache",)

    def test_not_installed(self) -> None:
        plugins = load("tst_missing", "*", required=("tst_wanted",))
        for name in ("tst_missing", "tst_wanted"):
            assert record(plugins, name) == PluginRecord(
                name,
                status="error",
                reason="it is not installed; install its distribution, "
                "or choose a plugin that `lazylayer plugins list` shows",
            )

    @pytest.mark.parametrize(
        "source",
        [
            "from lazylayer import SkipPlugin\nraise SkipPlugin('no /dev/tst; load its module')\n",
            CACHE.replace("@hookimpl", "@hookimpl\ndef lazylayer_configure(settings):\n"
                          "    from lazylayer import SkipPlugin\n"
                          "    raise SkipPlugin('no /dev/tst; load its module')\n@hookimpl"),
            "from lazylayer import SkipPlugin\nclass P:\n    def __init__(self):\n"
            "        raise SkipPlugin('no /dev/tst; load its module')\n",
        ],
        ids=["import", "configure", "class"],
    )  # fmt: skip
    def test_skipped(self, installed: Install, source: str) -> None:
        target = "tst_skipping:P" if "class P" in source else "tst_skipping"
        installed("tst-skipping", {"cache_tst_skipping": target}, {"tst_skipping": source})
        installed("tst-good", {"cache_tst": "tst_good"}, {"tst_good": CACHE})
        plugins = load("cache_tst_skipping", "cache_tst")
        plugins.configure(Settings())
        assert record(plugins, "cache_tst_skipping").status == "skipped"
        assert record(plugins, "cache_tst_skipping").reason == "no /dev/tst; load its module"
        assert asked(plugins) == ["cache_tst"]

    @pytest.mark.parametrize("failure", ["1 / 0", "raise SystemExit(1)"])
    def test_failing_configure(self, installed: Install, failure: str) -> None:
        source = f"{CACHE}@hookimpl\ndef lazylayer_configure(settings):\n    {failure}\n"
        installed("tst-bad", {"cache_tst_bad": "tst_bad"}, {"tst_bad": source})
        installed("tst-good", {"cache_tst": "tst_good"}, {"tst_good": CACHE})
        plugins = load("cache_tst_bad", "cache_tst")
        plugins.configure(Settings())
        assert record(plugins, "cache_tst_bad").status == "error"
        assert asked(plugins) == ["cache_tst"]

    def test_one_object_under_two_names(self, installed: Install) -> None:
        installed("tst-one", {"cache_tst_a": "tst_one", "cache_tst_b": "tst_one"}, {"tst_one": CACHE})
        plugins = load("cache_tst_a", "cache_tst_b")
        plugins.configure(Settings())
        assert sorted(each.status for each in plugins.records[:2]) == ["error", "ok"]


class TestConfiguring:
    def test_class_is_made_once(self, installed: Install) -> None:
        installed("tst-options", {"tst_options": "tst_options:Plugin"}, {"tst_options": OPTIONS})
        plugins = load("tst_options")
        plugins.configure(Settings(), {"plugin": {"tst_options": {"size": 3}}})
        plugin: Any = plugins.manager.get_plugin("tst_options")
        assert plugin.options.size == 3
        assert record(plugins, "tst_options").options == plugin.options

    def test_late_plugin_is_configured(self, installed: Install) -> None:
        class Late:
            def __init__(self) -> None:
                self.seen: list[Settings] = []

        from lazylayer import hookimpl

        class Configured(Late):
            @hookimpl
            def lazylayer_configure(self, settings: Settings) -> None:
                self.seen.append(settings)

        plugins = load("tst_nothing")
        plugins.configure(Settings())
        late = Configured()
        plugins.add("late", late)
        assert len(late.seen) == 1
        assert record(plugins, "late").status == "ok"
        plugins.add("late_and_bad", Late())
        assert record(plugins, "late_and_bad").status == "error"

    def problems(self, *overrides: str) -> list[LazylayerError]:
        configuration = load_configuration(None, ['plugins.enabled=["tst_options", "tst_plain"]', *overrides], {})
        plugins = Plugins.load(configuration.settings.plugins)
        plugins.configure(configuration.settings, configuration.plugin_tables)
        return find_problems(configuration, plugins)

    def test_bad_options_name_key_and_place(self, installed: Install) -> None:
        installed("tst-options", {"tst_options": "tst_options:Plugin"}, {"tst_options": OPTIONS})
        installed("tst-plain", {"tst_plain": "tst_plain"}, {"tst_plain": CACHE})
        problem, *_ = self.problems("plugin.tst_options.sise=3")
        assert isinstance(problem, ConfigurationError)
        assert str(problem) == (
            "--set plugin.tst_options.sise: unknown key plugin.tst_options.sise; did you mean size?"
        )
        problem, *_ = self.problems("plugin.tst_options.size=big")
        assert str(problem).endswith("plugin.tst_options.size: expected a whole number")

    def test_options_for_a_plugin_without_any(self, installed: Install) -> None:
        installed("tst-plain", {"tst_plain": "tst_plain"}, {"tst_plain": CACHE})
        problem, *_ = self.problems("plugin.tst_plain.size=3")
        assert str(problem) == "--set plugin.tst_plain.size: plugin.tst_plain: the plugin tst_plain takes no options"

    def test_options_for_a_plugin_that_is_not_there(self, installed: Install) -> None:
        installed("tst-plain", {"tst_plain": "tst_plain"}, {"tst_plain": CACHE})
        plugins = load("tst_plain")
        plugins.configure(Settings(), {"plugin": {"tst_plane": {"x": 1}, "qqq": {}}})
        assert record(plugins, "tst_plane").reason.endswith("it is not installed; did you mean tst_plain?")
        assert record(plugins, "qqq").reason.startswith("[plugin.qqq] sets options for it, but it is not installed; ")
        assert not any("pip install" in each.reason for each in plugins.records), "it is unknown who publishes that"

    def test_misspelt_in_disabled(self, installed: Install) -> None:
        installed("tst-plain", {"tst_plain": "tst_plain"}, {"tst_plain": CACHE})
        plugins = load(disabled=("tst_plian", "not_on_this_machine"))
        assert record(plugins, "tst_plian").reason == (
            "plugins.disabled names it, but it is not installed; did you mean tst_plain?"
        )
        assert plugins.record("not_on_this_machine") is None


class TestRequired:
    CACHES = ("cache.chunks=cache_tst", "cache.ranges=cache_tst")

    @pytest.fixture(autouse=True)
    def good_and_bad(self, installed: Install) -> None:
        installed("tst-good", {"cache_tst": "tst_good"}, {"tst_good": CACHE})
        installed("tst-bad", {"tst_bad": "tst_bad"}, {"tst_bad": "import nothing_of_this_name\n"})

    def refusal(self, *overrides: str) -> str:
        with pytest.raises(PluginRequiredError) as error:
            Program.load(None, [*self.CACHES, *overrides])
        return str(error.value)

    def test_nothing_else_is_needed(self) -> None:
        with Program.load(None, self.CACHES) as program:
            assert program.plugins.record("tst_bad") is not None
            cache: Any = program.hooks.of("cache_tst").open_cache("chunks")
            assert cache.of == "tst_good"

    def test_required_and_broken(self) -> None:
        said = self.refusal('plugins.required=["tst_bad"]')
        assert said.startswith("plugin tst_bad (tst-bad 1.0): plugins.required asks for it, but import failed: Mod")
        assert said.endswith("; reinstall tst-bad")

    def test_required_and_missing(self) -> None:
        assert self.refusal('plugins.required=["keychain_tst"]') == (
            "plugin keychain_tst: plugins.required asks for it, but it is not installed; "
            "install its distribution, or choose a plugin that `lazylayer plugins list` shows"
        )

    def test_required_and_disabled(self) -> None:
        said = self.refusal('plugins.required=["cache_tst"]', 'plugins.disabled=["cache_tst"]')
        assert "plugins.required asks for it, but it is disabled: plugins.disabled names it" in said

    @pytest.mark.parametrize("key", ["cache.chunks", "cache.ranges", "mount.frontend"])
    def test_selected_by_name(self, key: str) -> None:
        assert f"plugin tst_bad (tst-bad 1.0): {key} asks for it, but import failed" in self.refusal(f"{key}=tst_bad")
        assert f"plugin nix: {key} asks for it, but it is not installed" in self.refusal(f"{key}=nix")

    def test_unusable_plugins_are_warned_of(self) -> None:
        from loguru import logger

        lines: list[str] = []
        logger.enable("lazylayer")
        sink = logger.add(lines.append, level="WARNING", format="{message}")
        try:
            Program.load(None, self.CACHES).close()
        finally:
            logger.remove(sink)
            logger.disable("lazylayer")
        assert any(line.startswith("plugin tst_bad is left out: import failed") for line in lines)
