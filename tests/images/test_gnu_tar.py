"""What the other tests trust: GNU tar's trees, checked against their source and against overlayfs."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.gnu_tar import apply_layers, extract_for_overlay, extract_layer
from images.odd_tree import CHUNK_SIZE, LONGEST_PATH, MANY_FILES, build_odd_layers
from images.tree_writer import TreeWriter, write_tar
from lazylayer_testing.facts.trees import TreeFacts, differences, snapshot_tree


@pytest.fixture(scope="module")
def merged(odd_layers: list[Path], server_directory: Path) -> Iterator[tuple[Path, frozenset[bytes]]]:
    directory = server_directory / "merged"
    yield directory, apply_layers(odd_layers, directory)
    shutil.rmtree(directory)


def test_the_odd_layers_are_the_same_each_time(odd_layers: list[Path], server_directory: Path) -> None:
    again = server_directory / "odd-tree-again"
    try:
        for first, second in zip(odd_layers, build_odd_layers(again), strict=True):
            assert _sha256(first) == _sha256(second)
    finally:
        shutil.rmtree(again)


def test_the_lowest_odd_layer_holds_what_it_promises(odd_layers: list[Path]) -> None:
    facts = snapshot_tree(odd_layers[0].with_suffix(""))
    assert {entry.kind for entry in facts.values()} == {
        *("file", "directory", "symlink", "fifo", "character device", "block device"),
    }
    assert max(map(len, facts)) == LONGEST_PATH
    assert max(len(name.rpartition(b"/")[2]) for name in facts) == 255
    assert sum(name.startswith(b"many/") for name in facts) == MANY_FILES
    sizes = {entry.size for name, entry in facts.items() if name.startswith(b"sizes/")}
    assert sizes >= {0, 1, CHUNK_SIZE, CHUNK_SIZE + 1, 10_000_000}
    assert {entry.uid for entry in facts.values()} >= {2**21, 2**31}
    assert facts[b"modes/file-7777"].mode == 0o7777
    assert dict(facts[b"xattrs/ping"].xattrs)["security.capability"]
    assert facts[b"links/original"].links == 3


@pytest.mark.parametrize("number", [0, 1, 2])
def test_extracts_a_layer_as_it_was(odd_layers: list[Path], server_directory: Path, number: int) -> None:
    directory = server_directory / f"extracted{number}"
    try:
        implicit = extract_layer(odd_layers[number], directory)
        extracted = snapshot_tree(directory, unknown_mtimes=implicit)
        source = snapshot_tree(odd_layers[number].with_suffix(""))
    finally:
        shutil.rmtree(directory)
    # Entries that a second entry of the archive replaces, and nodes: GNU tar links only files.
    other = {b"sizes/1", b"links/dangling"}
    other |= {b"nodes/fifo", b"nodes/fifo-again", b"nodes/null", b"nodes/null-again"}
    assert differences(_without(source, other), _without(extracted, other)) == []
    if number == 0:
        assert extracted[b"sizes/1"].size == 30
        assert extracted[b"links/dangling"].target == b"the second entry of this name"


def test_finds_implicit_directories(odd_layers: list[Path], server_directory: Path) -> None:
    directory = server_directory / "implicit"
    try:
        implicit = extract_layer(odd_layers[1], directory)
    finally:
        shutil.rmtree(directory)
    below = {b"parents", b"parents/inner", b"nowhere", b"nowhere/else", b"nowhere/else/inner"}
    assert implicit == below | {b".", b"opaque-implicit"}


def test_merges_as_overlayfs_does(
    odd_layers: list[Path], merged: tuple[Path, frozenset[bytes]], server_directory: Path
) -> None:
    directory, unknown = merged
    scratch = server_directory / "overlay"
    lower = [scratch / f"layer{number}" for number in range(len(odd_layers))]
    implicit: set[bytes] = set()
    target = scratch / "mounted"
    try:
        for archive, layer in zip(odd_layers, lower, strict=True):
            implicit |= extract_for_overlay(archive, layer)
        target.mkdir()
        options = "ro,lowerdir=" + ":".join(map(str, reversed(lower)))
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, target], check=True)
        try:
            mounted = snapshot_tree(target)
        finally:
            subprocess.run(["umount", target], check=True)
    finally:
        shutil.rmtree(scratch)
    ours = snapshot_tree(directory, unknown_mtimes=unknown)
    # overlayfs shows an implicit directory's made-up attributes, and counts links that are hidden.
    implicit -= {b"."}
    assert {name: facts.kind for name, facts in ours.items()} == {name: facts.kind for name, facts in mounted.items()}
    found = differences(_without(ours, implicit), _without(mounted, implicit))
    # The mark for overlayfs in a user namespace is an ordinary attribute to this one.
    found = [line for line in found if not line.endswith("xattr user.overlay.opaque is y, expected None")]
    assert found == [
        "removed/one-name: links is 2, expected 1",
        "replaced/linked-again: links is 2, expected 1",
    ]


def test_merges_as_the_specification_says(merged: tuple[Path, frozenset[bytes]]) -> None:
    directory, unknown = merged
    facts = snapshot_tree(directory, unknown_mtimes=unknown)

    def content(name: str) -> bytes:
        return (directory / name).read_bytes()

    def names(name: str) -> set[str]:
        return {path.name for path in (directory / name).iterdir()}

    assert unknown == set()
    assert not any(b".wh." in name.rpartition(b"/")[2][:4] for name in facts)
    assert names("removed") == {"file", "one-name"}
    assert content("removed/file") == b"back again\n"
    assert names("opaque") == {"below", "from-base"}
    assert names("opaque/below") == {"from-middle"}
    assert names("opaque-marked-last") == {"from-middle", "from-base"}
    assert names("opaque-implicit") == {"from-middle"}
    assert names("opaque-twice") == {"from-top"}
    assert names("siblings") == {"file", "marked-last"}
    assert content("siblings/file") == content("siblings/marked-last") == b"middle"
    assert names("replaced/there-and-back") == {"from-top"}
    assert facts[b"replaced/directory-by-file"].kind == "file"
    assert facts[b"replaced/file-by-directory"].kind == "directory"
    assert facts[b"replaced/content"].mode == 0o4711
    assert facts[b"replaced/content"].xattrs == ()
    assert facts[b"replaced/attributes"].mode == 0o2750
    assert facts[b"replaced/attributes"].xattrs == ()
    assert names("replaced/attributes") == {"stays"}
    assert facts[b"parents"].mode == 0o711
    assert facts[b"parents"].xattrs == (("user.kept", b"yes"),)
    assert names("parents/inner") == {"from-base", "from-middle"}
    assert names("nowhere") == set()
    assert facts[b"."].mode == 0o711
    assert b"gone" not in facts


def test_a_whiteout_never_hides_its_own_layers_directory(as_root: None, tmp_path: Path) -> None:
    lower = TreeWriter(tmp_path / "lower")
    lower.directory(b"d")
    lower.file(b"d/below")
    lower.close()
    upper = TreeWriter(tmp_path / "upper")
    upper.directory(b"d")
    upper.file(b"d/above")
    upper.whiteout(b"d")
    upper.close()
    archives = [tmp_path / "lower.tar", tmp_path / "upper.tar"]
    for archive, tree in zip(archives, (lower, upper), strict=True):
        write_tar(archive, tree.root, tree.names, "gnu")
    apply_layers(archives, tmp_path / "merged")
    assert [path.name for path in (tmp_path / "merged" / "d").iterdir()] == ["above"]
    extract_for_overlay(archives[1], tmp_path / "overlay")
    facts = snapshot_tree(tmp_path / "overlay")
    assert facts[b"d"].xattrs == (("trusted.overlay.opaque", b"y"), ("user.overlay.opaque", b"y"))


def _without(facts: TreeFacts, names: set[bytes]) -> TreeFacts:
    return {name: entry for name, entry in facts.items() if name not in names}


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
