"""`lazylayer plugins check NAME` runs the kits on plugins of third parties: good ones pass, bad ones do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.command_line import CommandLine
from synthetic.distributions import install

CACHE = """
import collections, threading
import msgspec
from lazylayer import hookimpl
from lazylayer.api.cache import Cache

class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max_bytes: int = 1000

class SmallCache(Cache):
    def __init__(self, max_bytes):
        self._lock, self._max_bytes, self._values = threading.Lock(), max_bytes, collections.OrderedDict()

    def get(self, key):
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key, data):
        with self._lock:
            if len(data) <= self._max_bytes:
                self._values[key] = KEPT(bytes(data))
                self._values.move_to_end(key)
            while sum(map(len, self._values.values())) > self._max_bytes:
                self._values.popitem(last=False)

    def has(self, key):
        with self._lock:
            return key in self._values

    def remove(self, key):
        with self._lock:
            self._values.pop(key, None)

class Plugin:
    @hookimpl
    def lazylayer_open_cache(self, options):
        return SmallCache(options.max_bytes)
"""


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    site = tmp_path / "site"
    for name, kept in {"cache_good": "bytes", "cache_torn": "(lambda data: data[:30_000])"}.items():
        source = CACHE.replace("NAME", name).replace("KEPT", kept)
        install(site, f"tst-{name}", {name: f"tst_{name}:Plugin"}, {f"tst_{name}": source})
    no_kit = "from lazylayer import hookimpl\n@hookimpl\ndef lazylayer_report_state(event): ...\n"
    install(site, "tst-reporter", {"reporter": "tst_reporter"}, {"tst_reporter": no_kit})
    command_line = CommandLine(tmp_path)
    command_line.environment["PYTHONPATH"] = str(site)
    return command_line


def test_good_plugin_passes(command_line: CommandLine) -> None:
    done = command_line.run("plugins", "check", "cache_good", "--", "-q")
    said = done.stdout.decode()
    assert "cache_good (tst-cache_good 1.0)" in said
    assert "lazylayer_open_cache: checked by lazylayer_testing.checks.plugin:check_cache" in said
    assert " passed" in said


def test_options_of_the_configuration_are_used(command_line: CommandLine) -> None:
    settings = {"plugin.cache_good.no_such_option": "1"}
    done = command_line.run("plugins", "check", "cache_good", check=False, settings=settings)
    assert done.returncode == 78
    assert b"unknown key plugin.cache_good.no_such_option" in done.stderr


def test_bad_plugin_fails_and_says_where(command_line: CommandLine) -> None:
    done = command_line.run("plugins", "check", "cache_torn", "--", "-q", "-x", check=False)
    assert done.returncode == 1
    assert b"FAILED" in done.stdout
    assert b"assert cache.get(" in done.stdout, "asserts of the kit are explained"


def test_hook_without_kit(command_line: CommandLine) -> None:
    done = command_line.run("plugins", "check", "reporter")
    assert b"lazylayer_report_state: no installed kit checks this hook" in done.stdout


def test_unknown_plugin(command_line: CommandLine) -> None:
    done = command_line.run("plugins", "check", "cache_missing", check=False)
    assert done.returncode == 78
    assert b"`lazylayer plugins check` asks for it, but it is not installed" in done.stderr


KIT = """
def check(name, settings, tables, arguments):
    print("third party's kit:", name, tables["plugin"][name], *arguments)
    return 3
"""


def test_third_party_ships_a_kit(command_line: CommandLine, tmp_path: Path) -> None:
    kits = {"lazylayer.kits": {"lazylayer_report_state": "tst_kit:check"}}
    plugin = """
import msgspec
from lazylayer import hookimpl

class Options(msgspec.Struct, frozen=True):
    size: int = 1

class Plugin:
    @hookimpl
    def lazylayer_report_state(self, event): ...
"""
    install(
        tmp_path / "site", "tst-kit", {"loud": "tst_loud:Plugin"}, {"tst_kit": KIT, "tst_loud": plugin}, groups=kits
    )
    done = command_line.run("plugins", "check", "loud", "--", "-q", check=False, settings={"plugin.loud.size": "2"})
    assert done.returncode == 3
    said = done.stdout.decode()
    assert "lazylayer_report_state: checked by tst_kit:check" in said
    assert "third party's kit: loud {'size': 2} -q" in said


def test_broken_kit(command_line: CommandLine, tmp_path: Path) -> None:
    install(tmp_path / "site", "tst-kit", {}, groups={"lazylayer.kits": {"lazylayer_report_state": "tst_gone:check"}})
    done = command_line.run("plugins", "check", "reporter", check=False)
    assert done.returncode == 1
    assert b"kit tst_gone:check of tst-kit: No module named 'tst_gone'; reinstall it" in done.stderr
