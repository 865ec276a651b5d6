from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest

from lazylayer.errors import BuildError
from lazylayer_testing.facts.trees import differences, snapshot_tree
from lazylayer_testing.needs import needs_root
from lazylayer_tool_images.directorytar import DirectoryArchive


def make_tree(tree: Path) -> None:
    (tree / "d" / "empty").mkdir(parents=True)
    (tree / "d" / "file").write_bytes(b"content" * 1000)
    (tree / "d" / "file").chmod(0o4751)
    os.link(tree / "d" / "file", tree / "hard")
    (tree / "soft").symlink_to("../outside")
    (tree / os.fsdecode(b"caf\xe9")).write_bytes(b"")
    (tree / ("n" * 200)).write_bytes(b"x")
    os.mkfifo(tree / "pipe")
    os.utime(tree / "d", ns=(0, 1_600_000_000_123_456_789))


@needs_root
def test_archive_is_extracted_to_the_same_tree(tmp_path: Path) -> None:
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    make_tree(tree)
    os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
    os.chown(tree / "soft", 1000, 70_000, follow_symlinks=False)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "socket"))
        archive = DirectoryArchive(tree).read()
    (tree / "socket").unlink()
    copy.mkdir()
    command = ["tar", "--extract", "--directory", str(copy), "--same-permissions", "--numeric-owner", "--xattrs"]
    subprocess.run(command, input=archive, check=True)
    wanted = snapshot_tree(tree, unknown_mtimes=[b"."])
    assert differences(wanted, snapshot_tree(copy, unknown_mtimes=[b"."])) == []


def test_archive_is_the_same_each_time_and_however_it_is_read(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    whole = DirectoryArchive(tmp_path / "tree").read()
    for size in (1, 511, 512, 10_000):
        archive = DirectoryArchive(tmp_path / "tree")
        assert b"".join(iter(lambda archive=archive, size=size: archive.read(size), b"")) == whole  # type: ignore[misc]
    with tarfile.open(fileobj=io.BytesIO(whole), encoding="utf-8", errors="surrogateescape") as tar:
        names = tar.getnames()
    assert names[0] == "."
    assert names[1:] == sorted(names[1:])


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="not a directory"):
        DirectoryArchive(tmp_path / "nowhere")
    (tmp_path / "f").write_bytes(bytes(2 << 20))
    archive = DirectoryArchive(tmp_path)
    archive.read(1 << 20)
    os.truncate(tmp_path / "f", 1 << 20)
    with pytest.raises(BuildError, match="shorter"):
        archive.read()
    archive = DirectoryArchive(tmp_path)
    (tmp_path / "f").rename(tmp_path / "g")
    assert b"g" in archive.read()
