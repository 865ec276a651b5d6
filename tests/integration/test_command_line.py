"""Small things that people meet at the command line: what they mistype, and where output goes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from e2e.command_line import CommandLine


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, **{"cache.chunks": "cache_memory", "cache.ranges": "cache_memory"})


@pytest.fixture
def image(command_line: CommandLine, tmp_path: Path) -> str:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (tree / "empty").touch()
    command_line.run("convert", f"dir:{tree}", f"oci:{tmp_path}/image:v")
    return f"oci:{tmp_path}/image:v"


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode().splitlines()[-1]


def test_a_file_is_named_as_in_ls(command_line: CommandLine, image: str) -> None:
    assert command_line.run("ls", f"{image}:/etc").stdout == b"hosts\n"
    content = b"127.0.0.1 localhost\n"
    assert command_line.run("cat", f"{image}:/etc/hosts").stdout == content
    assert command_line.run("cat", f"{image}:/etc/hosts", "empty", "etc/hosts").stdout == content * 2
    assert command_line.run("cat", image, "etc/hosts").stdout == content


def test_cat_without_a_path(command_line: CommandLine, image: str) -> None:
    done = command_line.run("cat", image, check=False)
    assert done.returncode == 2
    assert said(done) == "Error: Missing argument 'PATH': cat REF:/PATH, or cat REF PATH..."


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("http://host.test/name:tag", "write host.test/name:tag, and add --plain-http"),
        ("https://host.test/name:tag", "write host.test/name:tag"),
        ("docker://host.test/name:tag", "write host.test/name:tag"),
    ],
)
def test_urls_are_not_references(command_line: CommandLine, typed: str, hint: str) -> None:
    for command in (["ls", typed], ["cat", typed, "x"], ["mount", typed, "/"]):
        done = command_line.run(*command, check=False)
        assert done.returncode == 2
        assert said(done).endswith(f"references of images have no {typed.partition('host')[0]}; {hint}")


def test_unknown_format_lists_formats(command_line: CommandLine, image: str, tmp_path: Path) -> None:
    done = command_line.run("convert", "--format", "foo", image, f"oci:{tmp_path}/other:v", check=False)
    assert done.returncode == 1
    assert "unknown format 'foo'" in said(done)
    assert "estargz" in said(done)
    assert "zstdchunked" in said(done)


def test_directory_must_be_there(command_line: CommandLine, image: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory, reason in {"missing": "does not exist", "file": "is a file"}.items():
        done = command_line.run("mount", image, tmp_path / directory, check=False)
        assert done.returncode == 2
        assert reason in said(done)


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["config", "show"], ["--help"]])
def test_full_output_is_one_error(command_line: CommandLine, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command_line.command(*arguments), stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr == b"lazylayer: error: No space left on device\n"


@pytest.mark.fuse
def test_mounting_is_silent_and_its_log_is_kept(command_line: CommandLine, image: str, tmp_path: Path) -> None:
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    done = command_line.run("mount", image, mountpoint)
    try:
        assert (done.stdout, done.stderr) == (b"", b"")
        assert sorted(each.name for each in mountpoint.iterdir()) == ["empty", "etc"]
        assert list(command_line.run_directory.glob("processes/*/log"))
    finally:
        command_line.run("umount", mountpoint)
