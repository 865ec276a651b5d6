"""A plugin of an earlier contract is recorded with what to change, and imports of moved modules with the new place."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazylayer.api.settings import PluginsSettings, Settings
from lazylayer.cli.migration import HOOKS, MOVED, explain_failure
from lazylayer.plugin.calling import make_manager
from lazylayer.plugin.records import PluginRecord
from lazylayer.plugin.registry import Plugins
from synthetic.distributions import install

HOOK = "from lazylayer import hookimpl\n@hookimpl\ndef lazylayer_"
OLD = {
    "warm_up": (
        "warm_up(frontend): ...",
        "it implements lazylayer_warm_up, a hook that this version of lazylayer does not have",
        "implement lazylayer_daemon_started(frontend) instead",
    ),
    "open_cache": (
        "open_cache(kind, purpose): ...",
        "lazylayer_open_cache does not take kind",
        "only the named cache is asked; take (purpose, options) and always return a cache",
    ),
    "probe_frontend": (
        "probe_frontend(frontend): ...",
        "lazylayer_probe_frontend does not take frontend",
        "only the named frontend is asked; take (options) and return Works() or Missing(reason, remedy)",
    ),
    "mount_tree": (
        "mount_tree(tree, mountpoint, options): ...",
        "lazylayer_mount_tree takes options, but the plugin declares none",
        "MountOptions are now called mount_options",
    ),
    "build_layer": (
        "build_layer(format, source, destination, options): ...",
        "lazylayer_build_layer does not take options",
        "BuildOptions are now called build_options",
    ),
    "plugin_options": (
        "configure(settings): settings.plugin_options('tst_old', object)",
        "AttributeError: 'Settings' object has no attribute 'plugin_options'",
        "settings.plugin_options is gone: take lazylayer_configure(settings, options), and declare a struct named "
        "Options beside it; the core fills and checks it",
    ),
    "resolver_options": (
        "configure(settings): settings.resolver_options(object)",
        "AttributeError: 'Settings' object has no attribute 'resolver_options'",
        "settings.resolver_options is gone: take lazylayer_configure(settings, options), "
        'set options_table = "resolver", and declare a struct named Options',
    ),
    "tables": (
        "configure(settings): settings.plugin['tst_old']",
        "AttributeError: 'Settings' object has no attribute 'plugin'",
        "settings.plugin is gone: settings hold no options",
    ),
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("tst_"):
            del sys.modules[name]


def record(site: Path, source: str) -> PluginRecord:
    """The record of a plugin with this source, after a start."""
    install(site, "tst-old", {"tst_old": "tst_old"}, {"tst_old": source})
    plugins = Plugins.load(PluginsSettings(enabled=("tst_old",)))
    plugins.configure(Settings(), {"plugin": {}})
    found = plugins.record("tst_old")
    assert found is not None
    return found


@pytest.mark.parametrize("case", OLD)
def test_old_contract_is_an_error_that_says_what_to_change(site: Path, case: str) -> None:
    source, reason, advice = OLD[case]
    found = record(site, HOOK + source + "\n")
    assert found.status == "error"
    assert found.reason.startswith(reason)
    assert explain_failure(found).startswith(advice)


def test_options_that_are_no_struct(site: Path) -> None:
    found = record(site, "class Options: ...\n" + HOOK + "close(): ...\n")
    assert found.status == "error"
    assert found.reason == "its Options is not a msgspec.Struct; declare class Options(msgspec.Struct, frozen=True)"


def test_hooks_that_went_are_gone() -> None:
    assert not [hook for hook in HOOKS if hasattr(make_manager().hook, hook)]


@pytest.mark.parametrize("statement", ["from lazylayer.cache import Cache", "import lazylayer.cache"])
def test_old_import_names_the_new_place(site: Path, statement: str) -> None:
    found = record(site, f"{statement}\n{HOOK}close(): ...\n")
    assert found.status == "error"
    assert explain_failure(found) == "lazylayer.cache is now lazylayer.api.cache"


def test_old_kit_names_the_new_place(site: Path) -> None:
    found = record(site, "import lazylayer.testing.cache\n")
    assert explain_failure(found) == "lazylayer.testing is now lazylayer_testing"


def test_other_import_errors_have_the_usual_advice(site: Path) -> None:
    found = record(site, "import lazylayer.nothing\n")
    assert found.reason.endswith("; reinstall tst-old")
    assert explain_failure(found) == ""


@pytest.mark.parametrize("module", MOVED)
def test_moved_modules_are_gone_and_their_new_places_exist(module: str) -> None:
    assert importlib.util.find_spec(f"lazylayer.{module}") is None
    for place in re.findall(r"lazylayer[\w.]+", MOVED[module]):
        assert importlib.util.find_spec(place) is not None
    (names,) = re.findall(r"\((.*?)\)", MOVED[module]) if MOVED[module].count("(") == 1 else ("",)
    found = importlib.import_module(re.findall(r"lazylayer[\w.]+", MOVED[module])[0])
    assert all(hasattr(found, name) for name in filter(None, names.split(", ")))
