"""The metadata that are written, read back by an independent reader, by fsck.erofs, and timed by counting."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazylayer.api.tree import OPAQUE_XATTRS, Entry, Tree
from lazylayer.errors import LayerError, MountError
from lazylayer.layers.overlay import merge_trees
from lazylayer_frontend_erofs.format import BLOCK, crc32c, encode_device
from lazylayer_frontend_erofs.image import Image
from lazylayer_frontend_erofs.writer import file_entries, write_metadata
from lazylayer_tarlayers.treebuilder import TreeBuilder
from lazylayer_testing.frontend.facts import differences
from lazylayer_testing.frontend.trees import SampleTree, access_tree, odd_tree, shown_xattrs

from .erofs_reader import ErofsReader

NAMES = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.integers(1, 255).map(lambda length: b"n" * length),
    st.sampled_from([b"!", b"+", b"-", b".-", b"..x", b"\xff", b"a", b"b"]),
).filter(lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..") and name[:4] != b".wh.")
XATTRS = st.one_of(
    st.none(),
    st.dictionaries(
        st.one_of(
            st.binary(min_size=1, max_size=20).map(lambda rest: b"user." + rest),
            st.sampled_from([b"trusted.x", b"security.capability", b"system.posix_acl_access", *OPAQUE_XATTRS]),
        ),
        st.one_of(st.binary(max_size=20), st.integers(0, 5000).map(lambda length: b"v" * length)),
        max_size=4,
    ),
)
MODES = st.integers(0, 0o7777)
OWNERS = st.integers(0, 2**32 - 1)
TIMES = st.integers(-(2**62), 2**62)


def assert_shows(tree: Tree, image: bytes) -> None:
    """The image, read by the oracle, is the tree."""
    reader = ErofsReader(image)
    shown = dict(reader.walk())
    expected = dict(tree.walk())
    assert list(shown) == list(expected)
    assert reader.inodes == tree.inodes
    nids: dict[int, int] = {}
    for path, entry in expected.items():
        inode = shown[path]
        assert (inode.mode, inode.uid, inode.gid, inode.mtime, inode.nlink, inode.rdev) == (
            entry.mode, entry.uid, entry.gid, entry.mtime, entry.nlink, entry.rdev
        ), path  # fmt: skip
        assert dict(inode.xattrs) == shown_xattrs(entry), path
        if entry.is_symlink:
            assert inode.data == entry.target
        if entry.is_file:
            assert inode.size == entry.size
        assert nids.setdefault(entry.ino, inode.nid) == inode.nid, path
    assert len(set(nids.values())) == len(nids)
    block = len(image) // BLOCK
    for entry in file_entries(tree):
        assert reader.inode(nids[entry.ino]).first_block == block
        block += -(-entry.size // BLOCK)
    assert reader.blocks == block


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    build = TreeBuilder()
    directories = [b""]
    others: list[bytes] = []
    for _ in range(draw(st.integers(0, 25))):
        path = (draw(st.sampled_from(directories)) + b"/" + draw(NAMES)).lstrip(b"/")
        attributes: dict[str, Any] = {
            "uid": draw(OWNERS),
            "gid": draw(OWNERS),
            "mtime": draw(TIMES),
            "xattrs": draw(XATTRS),
        }
        kind = draw(st.sampled_from("fddldlcpsh"))
        if path in directories:
            kind = "d"
        elif path in others:
            continue
        mode = draw(MODES)
        if kind == "f":
            size = draw(st.one_of(st.integers(0, 3), st.integers(4090, 4100), st.integers(0, 2**40)))
            build.add(path, Entry(stat.S_IFREG | mode, size=size, **attributes))
        elif kind == "d":
            build.add(path, Entry(stat.S_IFDIR | mode, children={}, **attributes))
            directories.append(path)
            continue
        elif kind == "l":
            target = draw(st.one_of(st.binary(min_size=1, max_size=9), st.integers(1, 4095).map(lambda n: b"t" * n)))
            build.add(path, Entry(stat.S_IFLNK | 0o777, size=len(target), target=target, **attributes))
        elif kind == "c":
            device = os.makedev(draw(st.integers(0, 4095)), draw(st.integers(0, 2**20 - 1)))
            build.add(path, Entry(stat.S_IFCHR | mode, rdev=device, **attributes))
        elif kind == "p":
            build.add(path, Entry(stat.S_IFIFO | mode, **attributes))
        elif kind == "s":
            build.add(path, Entry(stat.S_IFSOCK | mode, **attributes))
        elif others:
            target = draw(st.sampled_from(others))
            if target != path:
                build.link(path, target)
            continue
        if kind != "h":
            others.append(path)
    many = draw(st.sampled_from([0, 0, 0, 5, 200, 400]))
    for number in range(many):
        build.add(b"many/%d%s" % (number, b"x" * (number % 30)), Entry(stat.S_IFREG, size=number % 3))
    return build.finish()


@given(trees())
@settings(max_examples=150, deadline=None)
def test_any_tree_is_read_back(tree: Tree) -> None:
    assert_shows(tree, write_metadata(tree).image)


def test_odd_tree_is_read_back() -> None:
    tree = odd_tree().tree
    assert_shows(tree, write_metadata(tree).image)


def test_merged_tree_is_read_back() -> None:
    tree = merge_trees([access_tree(b"x").tree, odd_tree().tree])
    assert_shows(tree, write_metadata(tree).image)


@pytest.mark.parametrize("name_length", [1, 2, 3, 7, 100, 254, 255])
@pytest.mark.parametrize("count", [1, 13, 14, 15, 16, 255, 256, 257, 300])
def test_directories_around_the_block_size(name_length: int, count: int) -> None:
    build = TreeBuilder()
    for number in range(min(count, 200**name_length)):
        digits = number.to_bytes(min(name_length, 2), "big").translate(bytes(range(1, 256)) + b"\xff")
        if b"/" not in digits and digits not in (b".", b"..") and 0xFF not in digits:
            build.add(b"d/" + digits + b"x" * (name_length - len(digits)), Entry(stat.S_IFREG))
    tree = build.finish()
    assert_shows(tree, write_metadata(tree).image)


def test_directory_that_fills_its_block_exactly() -> None:
    # 4096 = 12 * (n + 2) + 3 + names: 15 entries of 12 and names of 3889 bytes in all.
    build = TreeBuilder()
    lengths = [255] * 15 + [4096 - 12 * 18 - 3 - 255 * 15]
    for number, length in enumerate(lengths):
        build.add(b"d/" + bytes([65 + number]) * length, Entry(stat.S_IFREG))
    tree = build.finish()
    image = write_metadata(tree).image
    assert_shows(tree, image)
    reader = ErofsReader(image)
    nid, _ = reader.entries(reader.root)[b"d"]
    assert reader.inode(nid).size == 4096


def test_same_tree_gives_the_same_bytes() -> None:
    first, second = write_metadata(odd_tree().tree), write_metadata(odd_tree().tree)
    assert first == second
    other = write_metadata(access_tree(b"").tree)
    assert ErofsReader(first.image).uuid != ErofsReader(other.image).uuid


def test_attributes_without_a_place_are_left_out() -> None:
    build = TreeBuilder()
    attributes = {b"system.nfs4_acl": b"1", b"user.": b"2", b"com.apple": b"3", b"user.kept": b"4"}
    build.add(b"f", Entry(stat.S_IFREG, xattrs=attributes))
    build.add(b"g", Entry(stat.S_IFREG, xattrs={b"system.nfs4_acl": b"1"}))
    shown = dict(ErofsReader(write_metadata(build.finish()).image).walk())
    assert shown[b"f"].xattrs == ((b"user.kept", b"4"),)
    assert shown[b"g"].xattrs == ()


@pytest.mark.parametrize(
    "attributes",
    [
        {b"user." + b"n" * 256: b""},
        {b"user.x": bytes(65536)},
        {b"user.%d" % number: bytes(60_000) for number in range(5)},
    ],
)
def test_attributes_that_are_too_large_are_refused(attributes: dict[bytes, bytes]) -> None:
    build = TreeBuilder()
    build.add(b"f", Entry(stat.S_IFREG, xattrs=attributes))
    with pytest.raises(MountError, match="EROFS holds"):
        write_metadata(build.finish())


def test_more_data_than_blocks_can_address_are_refused() -> None:
    build = TreeBuilder()
    for number in range(5):
        build.add(b"%d" % number, Entry(stat.S_IFREG, size=2**42))
    with pytest.raises(MountError, match="address"):
        write_metadata(build.finish())


@pytest.mark.parametrize("attributes", [{"uid": -1}, {"gid": 2**32}, {"size": -5}, {"mtime": 2**100}])
def test_numbers_without_a_place_are_refused(attributes: dict[str, Any]) -> None:
    build = TreeBuilder()
    build.add(b"f", Entry(stat.S_IFREG, **attributes))
    with pytest.raises(MountError, match="cannot hold"):
        write_metadata(build.finish())


@pytest.mark.parametrize(("major", "minor"), [(0, 0), (1, 3), (259, 70_000), (4095, 2**20 - 1), (255, 255), (256, 256)])
def test_device_numbers(major: int, minor: int) -> None:
    assert encode_device(os.makedev(major, minor)) == (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def test_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283


# --- the image as one file -----------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2**21), st.integers(1, 300_000)), max_size=20), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_reads_of_the_image(ranges: list[tuple[int, int]], kind: int) -> None:
    build = TreeBuilder()
    for number, size in enumerate([0, 1, 4095, 4096, 4097, 10_000, 1_000_000, 1][kind:]):
        build.add(b"%d" % number, Entry(stat.S_IFREG, size=size))
    tree = SampleTree(build.finish())
    image = Image(tree, write_metadata(tree.tree))
    whole = bytes(image.metadata)
    for entry in file_entries(tree.tree):
        whole += tree.content(entry, 0, entry.size) + bytes(-entry.size % BLOCK)
    assert len(whole) == image.size
    for offset, size in ranges:
        assert b"".join(image.read(offset, size)) == whole[offset : offset + size]


def test_metadata_are_made_again_when_they_are_wanted() -> None:
    tree = odd_tree()
    metadata = write_metadata(tree.tree)
    made = [metadata]
    image = Image(tree, metadata, lambda: made[-1])
    image.release_metadata()
    assert b"".join(image.read(0, 8192)) == metadata.image[:8192]
    image.release_metadata()
    made.append(write_metadata(access_tree(b"").tree))
    with pytest.raises(LayerError, match="as they were"):
        image.read(0, 4096)
    image = Image(tree, metadata)
    image.release_metadata()
    assert image.metadata == metadata.image


def test_metadata_of_another_tree_are_refused() -> None:
    with pytest.raises(LayerError, match="another tree"):
        Image(odd_tree(), write_metadata(access_tree(b"").tree))


# --- the tools' word -------------------------------------------------------------------------------------


def write_image(tree: SampleTree, path: Path) -> None:
    """The whole image as a sparse file."""
    image = Image(tree, write_metadata(tree.tree))
    with path.open("wb") as file:
        file.write(image.metadata)
        at = len(image.metadata)
        for entry in file_entries(tree.tree):
            if entry.size < 2**30:
                file.seek(at)
                file.write(tree.content(entry, 0, entry.size))
            at += -(-entry.size // BLOCK) * BLOCK
        file.truncate(image.size)


@pytest.mark.skipif(shutil.which("fsck.erofs") is None, reason="needs erofs-utils")
def test_fsck_accepts_and_extracts(tmp_path: Path) -> None:
    tree = odd_tree()
    write_image(tree, tmp_path / "image")
    subprocess.run(["fsck.erofs", tmp_path / "image"], check=True, capture_output=True)
    if os.geteuid() != 0:
        return
    # Without the file of 5 GiB, and what is deeper than the tool can go.
    tree = access_tree(random.Random(1).randbytes(100_000))
    write_image(tree, tmp_path / "image")
    command = ["fsck.erofs", f"--extract={tmp_path / 'tree'}", "--preserve", str(tmp_path / "image")]
    subprocess.run(command, check=True, capture_output=True)
    found = [
        line for line in differences(tree, str(tmp_path / "tree")) if "listing" not in line and "inode" not in line
    ]
    assert found == []
