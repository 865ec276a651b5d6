"""A comparison that finds nothing is worth something only if it finds what is there to find."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lazylayer_testing.facts.trees import EntryFacts, differences, snapshot_tree
from lazylayer_testing.needs import needs_root


def _build(root: Path) -> Path:
    (root / "directory").mkdir(parents=True)
    file = root / "directory" / "file"
    file.write_bytes(b"content")
    os.link(file, root / "linked")
    (root / "symlink").symlink_to("linked")
    os.mkfifo(root / "fifo", 0o600)
    for name in ("directory/file", "symlink", "fifo", "directory", "."):
        os.utime(root / name, (1000, 1000), follow_symlinks=False)
    return root


def _rewrite(root: Path) -> None:
    file = root / "directory" / "file"
    file.write_bytes(b"CONTENT")
    os.utime(file, (1000, 1000))


def _replace_symlink(root: Path) -> None:
    (root / "symlink").unlink()
    (root / "symlink").symlink_to("nowhere")
    os.utime(root / "symlink", (1000, 1000), follow_symlinks=False)
    os.utime(root, (1000, 1000))


def _break_hardlink(root: Path) -> None:
    content = (root / "linked").read_bytes()
    (root / "linked").unlink()
    (root / "linked").write_bytes(content)
    for name in ("linked", "."):
        os.utime(root / name, (1000, 1000))


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (lambda root: (root / "fifo").chmod(0o4600), ["fifo: mode is 4600, expected 0600"]),
        (lambda root: os.utime(root / "fifo", (7, 7)), ["fifo: mtime is 7, expected 1000"]),
        (lambda root: os.utime(root, (7, 7)), [".: mtime is 7, expected 1000"]),
        (_rewrite, ["directory/file: sha256 is", "linked: sha256 is"]),
        (_replace_symlink, ["symlink: size is 7", "symlink: target is nowhere, expected linked"]),
        (
            _break_hardlink,
            [
                "directory/file: links is 1, expected 2",
                "directory/file: same_file is [], expected [directory/file, linked]",
                "linked: links is 1, expected 2",
                "linked: same_file is [], expected [directory/file, linked]",
            ],
        ),
    ],
)
def test_reports_each_change(tmp_path: Path, change: Callable[[Path], object], reported: list[str]) -> None:
    expected = snapshot_tree(_build(tmp_path / "expected"))
    changed = _build(tmp_path / "changed")
    assert differences(expected, snapshot_tree(changed)) == []
    change(changed)
    found = differences(expected, snapshot_tree(changed))
    assert len(found) == len(reported)
    for line, start in zip(found, reported, strict=True):
        assert line.startswith(start)


@needs_root
def test_reports_owners_and_attributes(tmp_path: Path) -> None:
    expected = snapshot_tree(_build(tmp_path / "expected"))
    changed = _build(tmp_path / "changed")
    os.chown(changed / "symlink", 3, 2**31, follow_symlinks=False)
    os.setxattr(changed / "directory", "trusted.added", b"\xff")
    assert differences(expected, snapshot_tree(changed)) == [
        "directory: xattr trusted.added is \\xff, expected None",
        "symlink: uid is 3, expected 0",
        "symlink: gid is 2147483648, expected 0",
    ]


def test_reports_missing_and_unexpected_entries_and_other_types(tmp_path: Path) -> None:
    root = _build(tmp_path / "tree")
    expected = snapshot_tree(root)
    (root / "fifo").unlink()
    (root / "added\nline").mkdir()
    (root / "symlink").unlink()
    (root / "symlink").touch()
    assert differences(expected, snapshot_tree(root), ignore=["mtime"]) == [
        "added\\nline: unexpected directory",
        "fifo: missing, expected a fifo",
        "symlink: is a file, expected a symlink",
    ]


def test_an_unknown_time_equals_any(tmp_path: Path) -> None:
    root = _build(tmp_path / "tree")
    unknown = snapshot_tree(root, unknown_mtimes=[b"fifo"])
    os.utime(root / "fifo", (7, 7))
    assert differences(unknown, snapshot_tree(root)) == []


def test_ends_a_long_report() -> None:
    expected = {b"%d" % number: EntryFacts("file") for number in range(1000)}
    found = differences(expected, {})
    assert len(found) == 101
    assert found[-1] == "… and 900 more differences"


def test_walks_deeper_than_the_longest_path(tmp_path: Path) -> None:
    levels = 30
    name = b"d" * 255
    directory = os.open(tmp_path, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=directory)
        deeper = os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = deeper
    os.close(os.open(b"file", os.O_WRONLY | os.O_CREAT, dir_fd=directory))
    os.close(directory)
    facts = snapshot_tree(tmp_path)
    assert len(facts) == levels + 2
    assert facts[b"/".join([name] * levels + [b"file"])].kind == "file"
