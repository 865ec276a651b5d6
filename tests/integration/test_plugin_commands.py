"""Commands of plugins: found by name, imported when they are used, and listed without importing anything."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from e2e.command_line import CommandLine
from synthetic.distributions import install

GROUP = "lazylayer.commands"
HELLO = '''
import pathlib
pathlib.Path(__file__).with_suffix(".imported").touch()
import click

@click.command()
@click.option("--name", default="you", help="Somebody.")
def hello(name):
    """Say hello.

    And no more than that.
    """
    click.echo(f"hello {name}")

@click.command("secret", hidden=True)
def secret():
    """Say nothing."""

@click.command(short_help="Say goodbye.")
def bye():
    """Say goodbye to everybody."""

made = click.Command("made", callback=lambda: click.echo("made"), help="Be made by a call.")
number = 3
'''


class Site:
    """A directory of installed distributions, and `lazylayer` that sees them."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "site"
        self.command_line = CommandLine(directory)
        self.command_line.environment["PYTHONPATH"] = str(self.path)
        self.run: Callable[..., CompletedProcess[bytes]] = self.command_line.run

    def install(
        self, distribution: str, commands: Mapping[str, str], plugins: Mapping[str, str] | None = None, **modules: str
    ) -> None:
        install(self.path, distribution, plugins or {}, modules, groups={GROUP: commands})

    def imported(self, module: str) -> bool:
        return (self.path / f"{module}.imported").exists()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def summary(text: bytes, command: str) -> str:
    found = re.search(rf"^  {command} +(.*)$", text.decode(), re.MULTILINE)
    return found[1] if found else ""


def test_runs(site: Site) -> None:
    site.install("tst-hello", {"hello": "tst_hello:hello"}, tst_hello=HELLO)
    assert site.run("hello", "--name", "me").stdout == b"hello me\n"


def test_is_listed_without_being_imported(site: Site) -> None:
    commands = {name: f"tst_hello:{name}" for name in ("hello", "secret", "bye")}
    site.install("tst-hello", commands, tst_hello=HELLO)
    done = site.run("--help")
    assert done.stderr == b""
    assert summary(done.stdout, "hello") == "Say hello."
    assert summary(done.stdout, "bye") == "Say goodbye."
    assert summary(done.stdout, "secret") == ""
    assert summary(done.stdout, "mount") == "Mount the image REF at DIR."
    assert not site.imported("tst_hello")


def test_command_in_a_package_is_listed_without_importing_the_package(site: Site) -> None:
    site.install("tst-hello", {"hello": "tst_package.deep.commands:hello"})
    (site.path / "tst_package" / "deep").mkdir(parents=True)
    (site.path / "tst_package" / "__init__.py").write_text("raise SystemExit(3)\n")
    (site.path / "tst_package" / "deep" / "__init__.py").touch()
    (site.path / "tst_package" / "deep" / "commands.py").write_text(HELLO)
    done = site.run("--help")
    assert (summary(done.stdout, "hello"), done.stderr) == ("Say hello.", b"")


def test_summary_that_is_not_in_the_source_is_had_by_importing(site: Site) -> None:
    site.install("tst-hello", {"made": "tst_hello:made"}, tst_hello=HELLO)
    assert summary(site.run("--help").stdout, "made") == "Be made by a call."


def test_only_the_command_that_is_used_is_imported(site: Site) -> None:
    site.install("tst-hello", {"hello": "tst_hello:hello"}, tst_hello=HELLO)
    site.install("tst-other", {"other": "tst_other:hello"}, tst_other=HELLO)
    site.run("hello")
    assert site.imported("tst_hello")
    assert not site.imported("tst_other")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("tst_hello:number", "tst_hello:number is not a click.Command"),
        ("tst_hello:missing", "AttributeError"),
        ("tst_broken:hello", "No module named 'no_such_library'"),
        ("tst_gone:hello", "No module named 'tst_gone'"),
    ],
)
def test_broken_command_is_named_and_takes_nothing_else_down(site: Site, value: str, said: str) -> None:
    site.install("tst-bad", {"bad": value}, tst_hello=HELLO, tst_broken="import no_such_library\n")
    done = site.run("bad", check=False)
    assert done.returncode == 1
    message = done.stderr.decode()
    assert message.startswith("lazylayer: error: plugin tst-bad (1.0): command bad: ")
    assert said in message
    assert message.count("\n") == 1
    assert "Traceback" in site.run("--debug", "bad", check=False).stderr.decode()
    listed = site.run("--help")
    assert "cannot be used" in summary(listed.stdout, "bad")
    assert summary(listed.stdout, "status")


def test_names_of_the_core_and_of_other_distributions_are_taken(site: Site) -> None:
    site.install("tst-a", {"hello": "tst_a:hello"}, tst_a=HELLO)
    site.install("tst-b", {"hello": "tst_b:hello", "mount": "tst_b:hello"}, tst_b=HELLO)
    done = site.run("--help")
    assert done.stderr.decode().splitlines() == [
        "lazylayer: warning: plugin tst-b: command hello already exists; ignored",
        "lazylayer: warning: plugin tst-b: command mount already exists; ignored",
    ]
    assert summary(done.stdout, "mount") == "Mount the image REF at DIR."
    site.run("hello")
    assert site.imported("tst_a")
    assert not site.imported("tst_b")


PLUGIN = "from lazylayer import hookimpl\n@hookimpl\ndef lazylayer_close(): ...\n"


def test_commands_of_disabled_plugins_are_not_offered(site: Site) -> None:
    site.install("tst-plain", {"plain": "tst_plain:hello"}, tst_plain=HELLO)
    plugins = {"tst_one": "tst_one", "tst_two": "tst_two"}
    site.install("tst-both", {"both": "tst_both:hello"}, plugins, tst_both=HELLO, tst_one=PLUGIN, tst_two=PLUGIN)
    for settings, offered in [
        ({"plugins.disabled": '["tst_one"]'}, True),
        ({"plugins.disabled": '["tst_one", "tst_two"]'}, False),
        ({"plugins.enabled": '["cache_dir"]'}, False),
        ({"plugins.enabled": '["tst_two@tst-both"]'}, True),
        ({"plugins.enabled": '["cache_dir", "*"]'}, True),
    ]:
        text = site.run("--help", settings=settings).stdout
        assert bool(summary(text, "both")) is offered, settings
        assert summary(text, "plain"), "it has no plugin that could be disabled"
        assert site.run("both", settings=settings, check=False).returncode == (0 if offered else 2)


def test_disabled_in_a_file(site: Site, tmp_path: Path) -> None:
    site.install("tst-hello", {"hello": "tst_hello:hello"}, {"tst_one": "tst_one"}, tst_hello=HELLO, tst_one=PLUGIN)
    file = tmp_path / "some.toml"
    file.write_text('[plugins]\ndisabled = ["tst_one"]\n')
    assert not summary(site.run("--config", str(file), "--help").stdout, "hello")


def test_broken_configuration_hides_nothing(site: Site) -> None:
    site.install("tst-hello", {"hello": "tst_hello:hello"}, {"tst_one": "tst_one"}, tst_hello=HELLO, tst_one=PLUGIN)
    done = site.run("--help", settings={"plugins.enabled": "3"})
    assert summary(done.stdout, "hello")
    assert b"commands of disabled plugins are shown too: --set plugins.enabled: plugins.enabled: exp" in done.stderr


@pytest.mark.parametrize(("typed", "meant"), [("helo", "hello"), ("moutn", "mount"), ("statsu", "status")])
def test_misspelt_command(site: Site, typed: str, meant: str) -> None:
    site.install("tst-hello", {"hello": "tst_hello:hello"}, tst_hello=HELLO)
    done = site.run(typed, check=False)
    assert done.returncode == 2
    assert f"No such command '{typed}'. Did you mean '{meant}'?" in done.stderr.decode()


def test_log_lines_of_a_command_are_heard(site: Site) -> None:
    source = """
import click
from loguru import logger
from lazylayer.cli import load_settings
logger.disable(__name__)

@click.command()
@click.pass_context
def talk(context):
    "Talk."
    load_settings(context)
    logger.warning("here I am")
"""
    site.install("tst-talk", {"talk": "tst_talk:talk"}, tst_talk=source)
    assert b"WARNING tst_talk: here I am" in site.run("talk").stderr


def test_our_own_commands_are_all_there(site: Site) -> None:
    text = site.run("--help").stdout
    for name in ("convert", "diff", "verify", "serve", "pull", "metrics", "cri-proxy", "login-check"):
        assert summary(text, name), name
        usage = site.run(name, "--help").stdout.decode()
        assert usage.startswith(f"Usage: lazylayer {name} "), sys.executable


def test_example_of_the_guide(site: Site) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "writing-a-plugin.md").read_text()
    section = guide.partition("\n## Commands\n")[2].partition("\n## ")[0]
    entry_points, source = re.findall(r"```(?:toml|python)\n(.*?)```", section, re.DOTALL)
    ((name, value),) = tomllib.loads(entry_points)["project"]["entry-points"][GROUP].items()
    place = value.partition(".")[2]  # the package of the guide has more in it
    site.install("tst-guide", {name: place})
    (site.path / place.partition(":")[0]).with_suffix(".py").write_text(source)
    assert summary(site.run("--help").stdout, name) == "Show where the caches are."
    assert site.run(name, settings={"root": "/some/where"}).stdout == b"/some/where\n"


def test_readme_lists_every_command(site: Site) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    section = readme.partition("\n## Commands\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    listed = {name.split()[0] for cell in cells for name in re.findall(r"`(.*?)`", cell)}
    commands = site.run("--help").stdout.decode().partition("Commands:\n")[2]
    assert listed == set(re.findall(r"^  ([a-z-]+)", commands, re.MULTILINE))
