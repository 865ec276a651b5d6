"""Members whose compressed bytes have a digest: verified before they are inflated, and found again afterwards."""

from __future__ import annotations

import hashlib
import threading

import msgspec
import pytest

from lazylayer.api.chunks import MAX_CHUNK_SIZE, ChunkTable, Seal
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import sha256_digest
from lazylayer.api.tree import Entry
from lazylayer.errors import FormatError, VerificationError
from lazylayer_tarlayers.treebuilder import TreeBuilder
from lazylayer_testing.synthetic import DictCache, SyntheticLayer
from synthetic.opened import Opened

PLAIN = bytes(range(256)) * 40
SPAN = 3000
FILES = {b"small": (10, 100), b"across": (2000, 5000), b"last": (9000, 1000)}
"""Where each file lies in the plain bytes, and its size."""


class SealedLayer(SyntheticLayer):
    """A layer of spans, each of which begins in the last byte of the one before. Inflating turns every bit over."""

    def __init__(self, turn: int = 0xFF) -> None:
        super().__init__({})
        self.data = bytes(each ^ 0xFF for each in PLAIN)
        self.digest = sha256_digest(self.data)
        self.chunks = ChunkTable(len(self.data))
        self.inflated: list[int] = []
        builder = TreeBuilder()
        starts = [max(start - 1, 0) for start in range(0, len(PLAIN), SPAN)]
        for start in starts:
            end = min(start + SPAN + (start > 0), len(PLAIN)) if start else SPAN
            seal = Seal(end, end - start, hashlib.sha256(self.data[start:end]).digest())
            self.chunks.seal(start, seal)
        for name, (begin, size) in FILES.items():
            entry = Entry(mode=0o100644, size=size, first_chunk=len(self.chunks))
            at, end = begin, begin + size
            while at < end:
                start = starts[at // SPAN]
                part = min(end, (at // SPAN + 1) * SPAN) - at
                self.chunks.append(offset=start, inner=at - start, file_offset=size - (end - at), size=part, digest=b"")
                entry.chunk_count += 1
                at += part
            builder.add(name, entry)
            self.entries[name] = entry
        self.chunks.finish(len(self.data))

        def inflate(data: bytes | memoryview, size: int, offset: int) -> bytes:
            self.inflated.append(offset)
            return bytes(each ^ turn for each in data[:size])

        self.contents = LayerContents("sealed", builder.finish(), self.chunks, sha256_digest(b"toc"), inflate)


def content(name: bytes) -> bytes:
    at, size = FILES[name]
    return PLAIN[at : at + size]


def read_and_close(cache: DictCache) -> None:
    """Read a file, and wait until all that came is kept."""
    opened = Opened(SealedLayer(), cache)
    assert opened.read(b"across") == content(b"across")
    opened.layer.close()


def test_files_are_read_across_members_that_share_a_byte() -> None:
    layer = SealedLayer()
    opened = Opened(layer)
    complete = threading.Event()
    opened.layer.when_complete(complete.set)
    assert {name: opened.read(name) for name in FILES} == {name: content(name) for name in FILES}
    assert opened.read(b"across", 900, 300) == content(b"across")[900:1200]
    assert complete.wait(20)
    assert sorted(layer.inflated) == sorted(set(layer.inflated)), "each member is inflated once"


@pytest.mark.parametrize("piece", [1, 7, 500, 2999, 3000, 3001, 10_000])
def test_shared_bytes_are_received_in_any_pieces(piece: int) -> None:
    opened = Opened(SealedLayer(), window_min=100_000, window_max=100_000)
    opened.source.piece = piece
    assert opened.read(b"across") == content(b"across")
    assert opened.read(b"last") == content(b"last")
    assert len(opened.source.asked) == 1


def test_another_process_verifies_what_was_cached_compressed() -> None:
    cache = DictCache()
    read_and_close(cache)
    again = Opened(SealedLayer(), cache)
    assert again.read(b"across") == content(b"across")
    assert again.source.asked == []


def test_plain_bytes_that_others_cached_are_not_believed() -> None:
    cache = DictCache()
    read_and_close(cache)
    plain = [key for key in cache.values if ":member" in key]
    assert plain
    for key in plain:
        cache.values[key] = bytes(len(cache.values[key]))
    again = Opened(SealedLayer(), cache)
    assert again.read(b"across") == content(b"across")


def test_damage_in_the_cache_is_fetched_again() -> None:
    cache = DictCache()
    read_and_close(cache)
    cache.values = {key: bytes(len(value)) for key, value in cache.values.items()}
    again = Opened(SealedLayer(), cache)
    assert again.read(b"across") == content(b"across")
    assert again.source.asked


def test_damage_on_the_way_is_not_inflated() -> None:
    layer = SealedLayer()
    opened = Opened(layer)
    opened.source.data = bytes([layer.data[0] ^ 1]) + layer.data[1:]
    with pytest.raises(VerificationError, match="digest of the index"):
        opened.read(b"small")
    assert layer.inflated == []
    assert opened.cache.values == {}


def test_tables_that_inflate_the_same_bytes_to_something_else_are_kept_apart() -> None:
    """Who indexes a layer of others decides what its bytes inflate to, for its own images and no others."""
    liar = SealedLayer(turn=0x0F)
    liar.contents = msgspec.structs.replace(liar.contents, toc_digest=sha256_digest(b"another"))
    opened = Opened(liar)
    assert opened.read(b"small") != content(b"small")
    opened.layer.close()
    victim = Opened(SealedLayer(), opened.cache, opened.store)
    assert victim.read(b"small") == content(b"small")


def test_memory_is_enough_without_a_cache() -> None:
    class NoRoom(DictCache):
        def put(self, key: str, data: bytes) -> None:
            pass

    opened = Opened(SealedLayer(), NoRoom())
    assert opened.read(b"small") == content(b"small")
    assert opened.read(b"small", 50, 10) == content(b"small")[50:60]
    assert len(opened.source.asked) == 1


DIGEST = bytes(range(32))


@pytest.mark.parametrize(
    ("offset", "seal"),
    [
        (-1, Seal(10, 10, DIGEST)),
        (10, Seal(10, 10, DIGEST)),
        (0, Seal(1001, 10, DIGEST)),
        (0, Seal(10, 0, DIGEST)),
        (0, Seal(10, MAX_CHUNK_SIZE + 1, DIGEST)),
        (0, Seal(10, 10, b"short")),
    ],
)
def test_seals_that_cannot_be_are_refused(offset: int, seal: Seal) -> None:
    with pytest.raises(FormatError):
        ChunkTable(1000).seal(offset, seal)


def test_a_member_that_is_far_larger_than_what_it_holds_is_refused() -> None:
    with pytest.raises(FormatError, match="takes 1000000 bytes to hold 100"):
        ChunkTable(1_000_000).seal(0, Seal(1_000_000, 100, DIGEST))


def test_a_chunk_past_its_member_is_refused() -> None:
    table = ChunkTable(1000)
    table.seal(5, Seal(100, 50, DIGEST))
    table.append(offset=5, inner=40, file_offset=0, size=11, digest=b"")
    with pytest.raises(FormatError, match="reaches past the 50 bytes"):
        table.finish(1000)


def test_sealed_and_other_members_stand_beside_each_other() -> None:
    table = ChunkTable(1000)
    table.seal(5, Seal(101, 50, DIGEST))
    table.append(offset=5, inner=0, file_offset=0, size=10, digest=b"")
    table.append(offset=5, inner=10, file_offset=0, size=40, digest=b"")
    table.append(offset=100, inner=0, file_offset=0, size=7, digest=DIGEST)
    table.finish(900)
    assert [tuple(table.member_range(member)) for member in range(table.members)] == [(5, 101), (100, 900)]
    assert [table.needed(member) for member in range(table.members)] == [50, 7]
    assert [table.seal_of(member) is not None for member in range(table.members)] == [True, False]
    assert table.total_size == 50 + 96 + 7
