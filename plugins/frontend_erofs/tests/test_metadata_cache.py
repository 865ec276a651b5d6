"""Finished metadata on disk: found again, never believed when damaged, bounded."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest

from lazylayer.errors import LayerError
from lazylayer_frontend_erofs import Options
from lazylayer_frontend_erofs.format import BLOCK
from lazylayer_frontend_erofs.metadata_cache import MetadataCache
from lazylayer_frontend_erofs.mount import _open_image, mount_tree
from lazylayer_frontend_erofs.probe import what_is_missing
from lazylayer_frontend_erofs.writer import Metadata, write_metadata
from lazylayer_testing.frontend.facts import differences
from lazylayer_testing.frontend.trees import SampleTree, access_tree

LIMIT = 10 * 1024 * 1024


def identified_tree(identity: str = "sample") -> SampleTree:
    tree = access_tree(b"x" * 5000)
    tree.identity = identity
    return tree


def only_file(root: Path) -> Path:
    (path,) = (root / "frontend_erofs").iterdir()
    return path


def test_what_was_kept_is_found_by_its_identity(tmp_path: Path) -> None:
    metadata = write_metadata(identified_tree().tree)
    MetadataCache(tmp_path, LIMIT).put("a", metadata)
    cache = MetadataCache(tmp_path, LIMIT)
    assert cache.get("a") == metadata
    assert cache.get("b") is None
    assert stat.S_IMODE(only_file(tmp_path).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "frontend_erofs").stat().st_mode) == 0o700


def test_every_damage_is_noticed(tmp_path: Path) -> None:
    metadata = write_metadata(identified_tree().tree)
    cache = MetadataCache(tmp_path, LIMIT)
    cache.put("a", metadata)
    whole = only_file(tmp_path).read_bytes()
    choose = random.Random(5)
    for _ in range(200):
        damaged = bytearray(whole)
        match choose.randrange(4):
            case 0:
                damaged[choose.randrange(len(damaged))] ^= 1 << choose.randrange(8)
            case 1:
                del damaged[choose.randrange(len(damaged)) :]
            case 2:
                damaged += choose.randbytes(choose.randrange(1, 5000))
            case 3:
                damaged[choose.randrange(64)] ^= 1 << choose.randrange(8)
        cache._path("a").write_bytes(damaged)
        assert cache.get("a") is None
    assert cache.get("a") is None


def test_next_mount_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = MetadataCache(tmp_path, LIMIT)
    first = _open_image(identified_tree(), cache)

    def fail(_: object) -> Metadata:
        raise AssertionError("the metadata are there already")

    monkeypatch.setattr("lazylayer_frontend_erofs.mount.write_metadata", fail)
    assert _open_image(identified_tree(), cache).metadata == first.metadata


@pytest.mark.parametrize("damage", ["bit", "size", "other tree"])
def test_damaged_metadata_are_written_again(tmp_path: Path, damage: str) -> None:
    cache = MetadataCache(tmp_path, LIMIT)
    first = _open_image(identified_tree(), cache)
    path = only_file(tmp_path)
    whole = path.read_bytes()
    if damage == "bit":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "size":
        path.write_bytes(whole[:24] + (first.size + BLOCK).to_bytes(8, "little") + whole[32:])
    else:
        cache.put("sample", write_metadata(access_tree(b"x" * 50_000).tree))
    again = _open_image(identified_tree(), cache)
    assert again.metadata == first.metadata
    assert path.read_bytes() == whole


def test_tree_without_identity_is_not_kept(tmp_path: Path) -> None:
    _open_image(identified_tree(""), MetadataCache(tmp_path, LIMIT))
    assert not (tmp_path / "frontend_erofs").exists()


def test_cache_is_bounded_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    metadata = write_metadata(identified_tree().tree)
    cache = MetadataCache(tmp_path, 3 * len(metadata.image))
    for number, identity in enumerate("abc"):
        cache.put(identity, metadata)
        os.utime(cache._path(identity), (number, number))
    assert cache.get("a") is not None
    cache.put("d", metadata)
    assert [identity for identity in "abcd" if cache.get(identity)] == ["a", "c", "d"]
    MetadataCache(tmp_path, 10).put("e", metadata)
    assert cache.get("e") is None


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "frontend_erofs").touch()
    cache = MetadataCache(tmp_path, LIMIT)
    cache.put("a", write_metadata(identified_tree().tree))
    assert cache.get("a") is None


@pytest.mark.fuse
def test_what_happens_to_the_file_of_a_mount_does_no_harm(tmp_path: Path) -> None:
    if missing := what_is_missing():
        pytest.skip(str(missing))
    tree = identified_tree()
    (tmp_path / "mount").mkdir()
    mounted = mount_tree(tree, str(tmp_path / "mount"), Options(stored_metadata=0), str(tmp_path))
    try:
        path = only_file(tmp_path)
        path.write_bytes(bytes(path.stat().st_size))
        assert differences(tree, mounted.mountpoint) == []
    finally:
        mounted.unmount()


def test_size_that_does_not_fit_the_tree_is_refused(tmp_path: Path) -> None:
    from lazylayer_frontend_erofs.image import Image

    metadata = write_metadata(identified_tree().tree)
    with pytest.raises(LayerError):
        Image(identified_tree(), Metadata(metadata.image, metadata.size + BLOCK))
