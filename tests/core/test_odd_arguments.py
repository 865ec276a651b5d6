"""Whatever is on the command line or in a configuration file is taken, or is a plain error: never a traceback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from loguru import logger

from lazylayer.cli import cli, main
from lazylayer.configuration import files

ODD = os.fsdecode(b"\xff\xfe")
DEEP = "[" * 60_000
SERVING = {"serve", "cri-proxy"}
"""Commands that would run forever with good arguments: they are given bad ones."""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(files, "DEFAULT_FILE", tmp_path / "etc/lazylayer.toml")
    monkeypatch.chdir(tmp_path)
    yield
    logger.remove()
    logger.disable("lazylayer")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit):
        main(arguments)
    return "".join(capsys.readouterr())


def commands() -> list[str]:
    return [name for name in cli.list_commands(click.Context(cli)) if name not in SERVING]


def values(parameter: click.Parameter, odd: str) -> list[str]:
    """Return an argument with this value, in each form that the parameter takes it."""
    if isinstance(parameter, click.Option):
        return [] if parameter.is_flag or parameter.count else [max(parameter.opts, key=len), odd]
    return [odd]


@pytest.mark.parametrize("name", commands())
def test_no_argument_of_a_command_is_a_defect(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    place = ["--set", f'root="{tmp_path}/root"', "--set", f'run="{tmp_path}/run"']
    needed = [value for each in command.params if each.required for value in values(each, "oci:missing")]
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            arguments = values(parameter, f"oci:{ODD}")
        elif not (arguments := values(parameter, ODD)):
            continue
        else:
            arguments += needed
        said = run(capsys, *place, name, *arguments)
        assert "a defect in" not in said, (name, arguments, said)


def test_a_mountpoint_that_no_status_could_show_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The mount would work, and then status and umount would fail for all mounts of its process."""
    (tmp_path / ODD).mkdir()
    assert "the name is not UTF-8" in run(capsys, "mount", "oci:missing", ODD)


@pytest.mark.parametrize("value", [ODD, f"root={ODD}", f"{ODD}=1", f"root={DEEP}", f"plugin.x.y={DEEP}", "root='\x00'"])
def test_no_setting_is_a_defect(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a defect in" not in run(capsys, "--set", value, "config", "show")


@pytest.mark.parametrize("content", [b"\xff", b"x = " + DEEP.encode(), b"\x00", b'root = "\\uD800"'])
def test_no_configuration_file_is_a_defect(content: bytes, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_bytes(content)
    said = run(capsys, "--config", "odd.toml", "config", "show")
    assert "odd.toml: not TOML" in said


@pytest.mark.parametrize("value", [ODD, DEEP])
def test_no_environment_is_a_defect(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAZYLAYER_CACHE__CHUNKS", value)
    assert "a defect in" not in run(capsys, "config", "show")


ARCHIVES = {"empty": b"", "zeros": bytes(20_000), "noise": os.urandom(20_000), "cut": b"oci-layout".ljust(512, b"\x00")}


@pytest.mark.parametrize("command", ["ls", "verify", "convert"])
@pytest.mark.parametrize("archive", ARCHIVES)
def test_no_archive_is_a_defect(archive: str, command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(ARCHIVES[archive])
    target = ["oci:out"] if command == "convert" else []
    said = run(capsys, "--set", f'root="{tmp_path}/root"', command, "oci-archive:image.tar", *target)
    assert "lazylayer: error: " in said
    assert "a defect in" not in said
