"""Reads fail before the kernel, told to do so by sysctl, aborts the FUSE connection that they came from."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from lazylayer.api.settings import FetchSettings, Settings
from lazylayer.cli import load_program
from lazylayer.cli.fusetimeout import within_fuse_timeout


@pytest.mark.parametrize(
    ("default", "most", "read", "stall"),
    [
        ("0\n", "0\n", 300, 60),
        ("", "", 300, 60),
        ("900\n", "0\n", 300, 60),
        ("200\n", "0\n", 100, 60),
        ("0\n", "60\n", 30, 30),
        ("600\n", "60\n", 30, 30),
    ],
)
def test_reads_end_before_the_kernel_ends_the_mount(
    tmp_path: Path, default: str, most: str, read: float, stall: float
) -> None:
    for name, value in (("default", default), ("max", most)):
        if value:
            (tmp_path / f"{name}_request_timeout").write_text(value)
    fetch = within_fuse_timeout(Settings(), tmp_path).fetch
    assert (fetch.read_timeout, fetch.stall_timeout) == (read, stall)


def test_shorter_timeouts_stay(tmp_path: Path) -> None:
    (tmp_path / "max_request_timeout").write_text("60\n")
    settings = Settings(fetch=FetchSettings(read_timeout=20, stall_timeout=5))
    assert within_fuse_timeout(settings, tmp_path) is settings


def test_programs_heed_the_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "max_request_timeout").write_text("60\n")
    monkeypatch.setattr("lazylayer.cli.fusetimeout._SYSCTLS", tmp_path)
    context = click.Context(click.Command("anything"))
    with load_program(context, [f'root="{tmp_path}/root"', f'run="{tmp_path}/run"']) as program:
        assert program.settings.fetch.read_timeout == 30
        assert program.configuration.settings.fetch.read_timeout == 300, "what is shown is what was configured"
