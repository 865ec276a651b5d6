"""A plugin that cannot be used takes nothing else down, and is explained; unless it is needed.

The plugins are distributions on disk, and `lazylayer` is run as an operator would.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from e2e.command_line import CommandLine
from synthetic.distributions import install

GOOD = """
import click
from lazylayer import hookimpl
from lazylayer.api.cache import Cache
from lazylayer.cli import pass_program

class DictCache(Cache):
    def __init__(self): self.values = {}
    def get(self, key): return self.values.get(key)
    def put(self, key, data): self.values[key] = data

class Plugin:
    @hookimpl
    def lazylayer_open_cache(self): return DictCache()

@click.command()
@click.argument("key")
@pass_program
def probe(program, key):
    "Put and get."
    cache = program.hooks.of("tst_good").open_cache("chunks")
    cache.put(key, b"value")
    click.echo(f"{key} {cache.get(key).decode()}")
"""
HEADER = "from lazylayer import SkipPlugin, hookimpl\n"
TROUBLES = {
    "broken": ("import no_such_library\n", "error", "No module named 'no_such_library'"),
    "exits": ("raise SystemExit(3)\n", "error", "SystemExit"),
    "from_tomorrow": (
        "@hookimpl\ndef lazylayer_teleport(layer): ...\n",
        "error",
        "it implements lazylayer_teleport, a hook that this version of lazylayer does not have",
    ),
    "skipping": ("raise SkipPlugin('no /dev/tst here; modprobe tst')\n", "skipped", "no /dev/tst here; modprobe tst"),
    "skipping_late": (
        "@hookimpl\ndef lazylayer_configure(settings): raise SkipPlugin('no licence')\n",
        "skipped",
        "no licence",
    ),
    "failing_late": ("@hookimpl\ndef lazylayer_configure(settings): settings.nonsense\n", "error", "nonsense"),
}
Run = Callable[..., CompletedProcess[bytes]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs `lazylayer` where the good plugin and all the troubled ones are installed."""
    path = tmp_path / "site"
    commands = {"lazylayer.commands": {"probe": "tst_good_module:probe"}}
    install(path, "tst-good", {"tst_good": "tst_good_module:Plugin"}, {"tst_good_module": GOOD}, groups=commands)
    for name, (source, _, _) in TROUBLES.items():
        install(path, f"tst-{name}", {f"tst_{name}": f"tst_{name}"}, {f"tst_{name}": HEADER + source})
    for vendor in ("red", "blue"):
        install(path, f"tst-{vendor}", {"tst_twice": f"tst_{vendor}:Plugin"}, {f"tst_{vendor}": GOOD})
    lazylayer = CommandLine(tmp_path, **{"cache.chunks": "tst_good", "cache.ranges": "tst_good"})
    lazylayer.environment["PYTHONPATH"] = str(path)
    return lazylayer.run


def listed(run: Run, **settings: str) -> dict[str, dict[str, Any]]:
    done = run("plugins", "list", "--json", settings=settings)
    return {record["name"]: record for record in json.loads(done.stdout)["plugins"]}


def test_others_work(run: Run) -> None:
    done = run("probe", "x")
    assert done.stdout == b"x value\n"


@pytest.mark.parametrize("trouble", TROUBLES)
def test_list_says_what_and_why(run: Run, trouble: str) -> None:
    _, status, reason = TROUBLES[trouble]
    record = listed(run)[f"tst_{trouble}"]
    assert record["status"] == status
    assert reason in record["reason"]
    assert (record["distribution"], record["version"]) == (f"tst-{trouble}", "1.0")


def test_list_as_text(run: Run) -> None:
    text = run("plugins", "list").stdout.decode()
    assert "tst_good" in text
    lines = text.splitlines()
    (where,) = (number for number, line in enumerate(lines) if line.startswith("tst_skipping "))
    assert lines[where].split() == ["tst_skipping", "skipped", "-", "tst-skipping", "1.0"]
    assert lines[where + 1].strip() == "no /dev/tst here; modprobe tst"


def test_duplicates(run: Run) -> None:
    done = run("plugins", "list", "--json")
    both = [each for each in json.loads(done.stdout)["plugins"] if each["name"] == "tst_twice"]
    assert [each["distribution"] for each in both] == ["tst-blue", "tst-red"]
    assert {each["status"] for each in both} == {"error"}
    assert "tst-blue 1.0, tst-red 1.0" in both[0]["reason"]
    done = run("plugins", "list", "--json", settings={"plugins.enabled": '["tst_twice@tst-red", "*"]'})
    both = [each for each in json.loads(done.stdout)["plugins"] if each["name"] == "tst_twice"]
    assert [(each["distribution"], each["status"]) for each in both] == [("tst-red", "ok"), ("tst-blue", "disabled")]


def test_missing(run: Run) -> None:
    record = listed(run, **{"plugins.enabled": '["tst_good", "resolver_mine"]'})["resolver_mine"]
    assert record["status"] == "error"
    assert record["reason"] == (
        "it is not installed; install its distribution, or choose a plugin that `lazylayer plugins list` shows"
    )
    assert run("probe", "x", settings={"plugins.enabled": '["tst_good", "resolver_mine"]'}).returncode == 0


def test_disabled_is_not_even_imported(run: Run) -> None:
    record = listed(run, **{"plugins.disabled": '["tst_exits"]'})["tst_exits"]
    assert (record["status"], record["reason"]) == ("disabled", "it is disabled: plugins.disabled names it")


@pytest.mark.parametrize("name", [*(each for each in TROUBLES if TROUBLES[each][1] != "ok"), "twice", "missing"])
def test_needed_plugin_stops_the_start_with_the_way_out(run: Run, name: str) -> None:
    for setting, value in {"plugins.required": f'["tst_{name}"]', "cache.chunks": f"tst_{name}"}.items():
        done = run("probe", "x", check=False, settings={setting: value})
        assert done.returncode == 78
        assert done.stdout == b""
        last = done.stderr.decode().splitlines()[-1]
        assert last.startswith(f"lazylayer: error: plugin tst_{name}")
        assert f"{setting} asks for it, but " in last
        reason = {"twice": "uninstall all but one", "missing": "it is not installed"}.get(name) or TROUBLES[name][2]
        assert reason in last


def test_check_says_everything(run: Run) -> None:
    wrong = {"plugins.required": '["tst_skipping", "tst_missing"]', "plugin.tst_good.x": "1"}
    done = run("config", "check", check=False, settings=wrong)
    said = done.stderr.decode()
    assert done.returncode == 78
    assert "lazylayer: error: --set plugin.tst_good.x: plugin.tst_good: the plugin tst_good takes no options" in said
    assert "lazylayer: error: plugin tst_skipping (tst-skipping 1.0): plugins.required asks for it" in said
    assert "lazylayer: error: plugin tst_missing: plugins.required asks for it, but it is not installed" in said
    assert "lazylayer: warning: plugin tst_broken is left out" in said
    assert run("config", "check").stdout.startswith(b"the configuration is good")


@pytest.mark.parametrize(("trouble", "line"), [("broken", "import no_such_library"), ("exits", "raise SystemExit(3)")])
def test_debug_shows_where_a_plugin_failed(run: Run, trouble: str, line: str) -> None:
    assert b"Traceback" not in run("plugins", "list").stderr
    said = run("--debug", "plugins", "list").stderr.decode()
    assert f"plugin tst_{trouble} cannot be loaded" in said
    assert line in said


def test_misspelt_name_in_disabled_is_a_warning(run: Run) -> None:
    done = run("config", "check", settings={"plugins.disabled": '["tst_god"]'})
    assert (
        b"plugin tst_god is left out: plugins.disabled names it, but it is not installed; did you mean" in done.stderr
    )
