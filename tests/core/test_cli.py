"""The command line's frame: options, exit codes, one-line errors. In this process where that is enough."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
from loguru import logger

from lazylayer import __version__
from lazylayer.cli import main, pass_program
from lazylayer.cli.commands import CORE_COMMANDS
from lazylayer.configuration import files, loading
from lazylayer.errors import ConfigurationError, MountError, PluginRequiredError
from lazylayer.program import Program
from synthetic.distributions import install

CACHES = ("--set", "cache.chunks=cache_test", "--set", "cache.ranges=cache_test")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(files, "DEFAULT_FILE", tmp_path / "etc" / "lazylayer.toml")
    yield
    logger.remove()
    logger.disable("lazylayer")


class Result:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def run(*arguments: str | Path) -> Result:
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, out, err)

    return run


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[click.Command], None]:
    """Offer a command as a plugin does, by an entry point."""

    def offer(command: click.Command) -> None:
        assert command.name is not None
        module = ModuleType("tst_commands")
        module.__dict__["command"] = command
        monkeypatch.setitem(sys.modules, "tst_commands", module)
        commands = {command.name: "tst_commands:command"}
        install(tmp_path / "site", "tst-commands", {}, groups={"lazylayer.commands": commands})
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    return offer


@pytest.fixture
def failing_command(offer: Callable[[click.Command], None]):  # type: ignore[no-untyped-def]
    """Makes `lazylayer fail` a command that raises what it is told."""

    def install(error: BaseException) -> None:
        @click.command("fail")
        def fail() -> None:
            raise error

        offer(fail)

    return install


class TestExits:
    @pytest.mark.parametrize(
        ("error", "status", "said"),
        [
            (MountError("/mnt is busy"), 1, "/mnt is busy"),
            (ConfigurationError("a: wrong"), 78, "a: wrong"),
            (PluginRequiredError("gone", plugin="x"), 78, "plugin x: gone"),
            (PermissionError(13, "Permission denied", "/mnt"), 1, "/mnt: Permission denied"),
            (OSError("odd"), 1, "odd"),
            (ValueError("odd"), 1, "ValueError: odd (a defect in lazylayer or a plugin; --debug shows where)"),
            (MountError("two\nlines, password=hunter2 \x1b[1m"), 1, "two\\nlines, password=*** \\x1b[1m"),
        ],
    )
    def test_one_line(self, run, failing_command, error, status, said) -> None:  # type: ignore[no-untyped-def]
        failing_command(error)
        result = run("fail")
        assert result.status == status
        assert result.err == f"lazylayer: error: {said}\n"
        assert result.out == ""

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
    def test_interrupted(self, run, failing_command, error) -> None:  # type: ignore[no-untyped-def]
        failing_command(error)
        result = run("fail")
        assert result.status == 130

    @pytest.mark.parametrize("option", ["-v", "--debug"])
    def test_debug_shows_where(self, run, failing_command, option) -> None:  # type: ignore[no-untyped-def]
        failing_command(MountError("/mnt is busy"))
        result = run(option, "fail")
        assert result.err.startswith("Traceback")
        assert result.err.endswith("\nlazylayer: error: /mnt is busy\n")

    def test_usage(self, run) -> None:  # type: ignore[no-untyped-def]
        assert run("mnt").status == 2
        assert run("--nonsense").status == 2
        assert "No such command 'mnt'" in run("mnt").err

    def test_version(self, run) -> None:  # type: ignore[no-untyped-def]
        result = run("--version")
        assert (result.status, result.out) == (0, f"lazylayer, version {__version__}\n")

    def test_status_of_a_command(self, run, offer) -> None:  # type: ignore[no-untyped-def]
        @click.command("seven")
        @click.pass_context
        def seven(context: click.Context) -> None:
            context.exit(7)

        offer(seven)
        assert run("seven").status == 7

    def test_broken_pipe(self) -> None:
        command = [sys.executable, "-m", "lazylayer", "config", "show"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait() == 141


class TestCommands:
    def test_summaries_are_those_of_the_commands(self) -> None:
        for name, lazy in CORE_COMMANDS.items():
            module, _, attribute = lazy.target.partition(":")
            command = getattr(importlib.import_module(module), attribute)
            assert command.name == name
            assert command.get_short_help_str(1000).rstrip(".") == lazy.summary.rstrip("."), name

    def test_help_of_every_command(self, run) -> None:  # type: ignore[no-untyped-def]
        for name in CORE_COMMANDS:
            result = run(name, "--help")
            assert result.status == 0
            assert f"Usage: lazylayer {name}" in result.out

    def test_program_is_passed_and_closed(self, run, offer, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
        closed: list[Program] = []
        monkeypatch.setattr("lazylayer.program.find_problems", lambda *_: [])
        monkeypatch.setattr(Program, "close", lambda self: closed.append(self))  # noqa: PLW0108 - a method

        @click.command("show")
        @click.option("--twice", is_flag=True)
        @pass_program
        def show(program: Program, twice: bool) -> None:
            click.echo(f"{program.settings.fetch.threads} {twice} {len(closed)}")

        offer(show)
        result = run("--set", "fetch.threads=3", "show", "--twice")
        assert result.out == "3 True 0\n"
        assert len(closed) == 1


class TestConfig:
    def test_show_is_toml(self, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        file = tmp_path / "my.toml"
        file.write_text('[plugin.x.host."a.test:1"]\nmirrors = ["m\\u001b", 1.5, true]\n[fetch]\nthreads = 3\n')
        result = run("--config", file, "config", "show", "--origin")
        shown = tomllib.loads(result.out)
        assert shown["fetch"]["threads"] == 3
        assert shown["plugin"]["x"] == {"host": {"a.test:1": {"mirrors": ["m\x1b", 1.5, True]}}}
        assert f"threads = 3  # {file}\n" in result.out
        assert 'chunks = "auto"  # default\n' in result.out
        assert tomllib.loads(run("--config", file, "config", "show").out) == shown

    @pytest.mark.parametrize("arguments", [[], ["--origin"]])
    def test_options_of_plugins_are_shown(self, run, tmp_path: Path, arguments: list[str]) -> None:  # type: ignore[no-untyped-def]
        file = tmp_path / "my.toml"
        file.write_text("[plugin.state_file]\nin_run = false\n[resolver]\nrequest_timeout_sec = 3\n")
        shown = run("--config", file, "config", "show", "--plugins", *arguments).out
        options = tomllib.loads(shown)
        assert options["plugin"]["state_file"] == {"in_mount": True, "in_run": False, "max_journal_bytes": 1 << 20}
        assert options["resolver"] == {"hosts": [], "host": {}, "request_timeout_sec": 3}
        assert "resolver" not in options["plugin"]["resolver_registry"]
        assert "# local_images is not set" in shown
        if arguments:
            assert f"in_run = false  # {file}\n" in shown
            assert "in_mount = true  # default\n" in shown
        file.write_text(shown)
        assert tomllib.loads(run("--config", file, "config", "show", "--plugins").out) == options

    def test_what_is_shown_can_be_loaded(self, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        file = tmp_path / "my.toml"
        file.write_text(run("config", "show").out)
        assert loading.load_configuration(file, (), {}).settings == loading.load_configuration().settings

    def test_show_json(self, run) -> None:  # type: ignore[no-untyped-def]
        plain = json.loads(run("--set", "fetch.threads=3", "config", "show", "--json").out)
        assert plain["fetch.threads"] == 3
        assert plain["plugins.enabled"] == []
        origins = json.loads(run("--set", "fetch.threads=3", "config", "show", "--json", "--origin").out)
        assert origins["fetch.threads"] == {"value": 3, "origin": "--set fetch.threads"}

    def test_secrets_are_not_shown(self, run) -> None:  # type: ignore[no-untyped-def]
        options = ["--set", 'plugin.x.hosts={a={password="hunter2"}, b=[{token="hunter2"}]}']
        for arguments in (["config", "show"], ["config", "show", "--json"]):
            result = run(*options, *arguments)
            assert "hunter2" not in result.out
            assert "***" in result.out

    def test_passwords_in_urls_are_not_shown(self, run) -> None:  # type: ignore[no-untyped-def]
        proxy = "http://ann:hunter2@proxy.test:3128"
        hosts = f'[{{host="a.test", mirrors=[{{url="http://ann:hunter2@m.test", proxy="{proxy}"}}], proxy="{proxy}"}}]'
        options = ["--set", f"resolver.hosts={hosts}", "--set", f'plugin.x.url="{proxy}?sig=hunter2"']
        for arguments in (["config", "show"], ["config", "show", "--origin"], ["config", "show", "--json"]):
            result = run(*options, *arguments)
            assert "hunter2" not in result.out
            assert "http://***@proxy.test:3128" in result.out

    def test_check_names_all_mistakes(self, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        file = tmp_path / "my.toml"
        file.write_text("[cache]\nchunk = 'x'\n[log]\nlevel = 'LOUD'\n")
        result = run("--config", file, "config", "check")
        assert result.status == 78
        assert result.err.splitlines() == [
            f"lazylayer: error: {file}: unknown key cache.chunk; did you mean cache.chunks?",
            f"lazylayer: error: {file}: log.level: expected one of "
            '"TRACE", "DEBUG", "INFO", "WARNING", "ERROR", not "LOUD"',
        ]

    def test_bad_configuration_stops_every_command(self, run) -> None:  # type: ignore[no-untyped-def]
        for arguments in (["plugins", "list"], ["config", "show"], ["status"], ["ls", "registry.test/x"]):
            result = run("--set", "cache.chunk=1", *arguments)
            assert result.status == 78
            assert result.err == (
                "lazylayer: error: --set cache.chunk: unknown key cache.chunk; did you mean cache.chunks?\n"
            )
