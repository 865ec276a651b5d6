"""Which bytes are fetched before first use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.chunks import ChunkTable
from lazylayer.api.labels import PREFETCH_SIZE
from lazylayer.api.layers import PrefetchPlan
from lazylayer.api.oci import Descriptor, sha256_digest
from lazylayer.api.settings import PrefetchSettings, Settings
from lazylayer.api.tree import Entry
from lazylayer_prefetch_landmark import PrefetchLandmark
from lazylayer_tarlayers.treebuilder import Landmarks, TreeBuilder

BLOB_SIZE = 10_000
PREFETCH_LANDMARK, NO_PREFETCH_LANDMARK = LANDMARKS = Landmarks(b".fetch-up-to-here", b".fetch-nothing")


def plan(*names: bytes, labels: dict[str, str] | None = None, size: int = 0) -> PrefetchPlan:
    """The plan for a layer of 1,000-byte files, one after the other from byte 0 of the blob."""
    chunks, builder = ChunkTable(BLOB_SIZE), TreeBuilder(LANDMARKS)
    for number, name in enumerate(names):
        chunks.append(offset=number * 1000, inner=0, file_offset=0, size=1000, digest=b"d" * 32)
        builder.add(name, Entry(mode=0o100644, size=1000, first_chunk=number, chunk_count=1))
    chunks.finish(len(names) * 1000)
    contents = SimpleNamespace(tree=builder.finish(), chunks=chunks)
    layer: Any = SimpleNamespace(contents=contents, descriptor=Descriptor("", sha256_digest(b""), BLOB_SIZE))
    plugin = PrefetchLandmark()
    plugin.lazylayer_configure(Settings(prefetch=PrefetchSettings(size=size)))
    return plugin.lazylayer_plan_prefetch(layer, labels or {})


@pytest.mark.seed(6)
def test_everything_in_front_of_the_landmark_is_fetched() -> None:
    assert plan(b"bin/sh", b"lib/libc.so", PREFETCH_LANDMARK, b"doc", size=5000).ranges == (ByteRange(0, 2000),)


@pytest.mark.seed(6)
def test_a_no_prefetch_landmark_wins_over_everything() -> None:
    assert plan(b"a", NO_PREFETCH_LANDMARK, labels={PREFETCH_SIZE: "500"}, size=5000).ranges == ()


@pytest.mark.seed(6)
def test_a_layer_without_landmark_is_fetched_up_to_the_size_of_the_settings() -> None:
    assert plan(b"a", size=700).ranges == (ByteRange(0, 700),)
    assert plan(b"a", size=0).ranges == ()


@pytest.mark.seed(6)
def test_no_more_is_fetched_than_the_blob_has() -> None:
    assert plan(b"a", size=1 << 40).ranges == (ByteRange(0, BLOB_SIZE),)


@pytest.mark.seed(3)
@pytest.mark.parametrize(("label", "end"), [("500", 500), ("nonsense", 700), ("99999999", BLOB_SIZE)])
def test_a_label_overrides_the_size_when_it_parses(label: str, end: int) -> None:
    assert plan(b"a", labels={PREFETCH_SIZE: label}, size=700).ranges == (ByteRange(0, end),)


def test_a_label_of_zero_means_nothing() -> None:
    assert plan(b"a", labels={PREFETCH_SIZE: "0"}, size=700).ranges == ()


def test_a_landmark_at_the_start_means_nothing() -> None:
    assert plan(PREFETCH_LANDMARK, b"a", size=700).ranges == ()


def test_the_plan_says_why() -> None:
    assert "landmark" in plan(b"a", PREFETCH_LANDMARK).reason
