"""Checks that a format refuses layers that are damaged or lie, in bounded time and memory."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from lazylayer.api.chunks import MAX_CHUNK_SIZE
from lazylayer.api.layers import LayerContents
from lazylayer.errors import LazylayerError
from lazylayer_testing.format.archive import facts_of, odd_archive, small_archive
from lazylayer_testing.format.layers import (
    BuiltFormatLayer,
    FormatFixtures,
    MakeLayer,
    OpenLayer,
    check_refusal,
    read_chunks,
    within,
)

__all__ = ["DamageChecks"]


_SECONDS = 30
_MEMORY = 256 * 1024 * 1024
_TAIL = 4096
"""Bytes from the end of a layer, which are damaged more often than others."""


class DamageChecks(FormatFixtures):
    """The checks of `lazylayer_open_layer` with layers of strangers."""

    @pytest.fixture
    def layer(self, make_layer: MakeLayer) -> BuiltFormatLayer:
        """A small layer to damage."""
        return make_layer(small_archive(), chunk_size=1000)

    @pytest.mark.parametrize("seed", range(60))
    def test_damage_never_passes(self, layer: BuiltFormatLayer, open_layer: OpenLayer, seed: int) -> None:
        """With verification, a damaged layer is refused, or its tree is the right one."""
        blob = _damaged(layer.blob, seed)
        try:
            contents = within(_SECONDS, lambda: open_layer(blob, layer.descriptor))
        except LazylayerError as error:
            check_refusal(error)
            return
        right = open_layer(layer.blob, layer.descriptor)
        assert contents.toc_digest == right.toc_digest
        assert list(contents.tree.walk()) == list(right.tree.walk())

    @pytest.mark.parametrize("seed", range(60))
    def test_lies_are_bounded(self, layer: BuiltFormatLayer, open_layer: OpenLayer, seed: int) -> None:
        """Without verification, all that a table says is still bounded, or refused with an error of lazylayer's."""
        blob = _damaged(layer.blob, seed)
        tracemalloc.start()
        try:
            contents = within(_SECONDS, lambda: open_layer(blob, layer.descriptor, verify=False))
            _check_bounds(contents, blob)
        except LazylayerError as error:
            check_refusal(error)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < _MEMORY, f"opening took {peak} bytes"

    @pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.999])
    def test_layer_that_is_cut_short_is_refused(
        self, layer: BuiltFormatLayer, open_layer: OpenLayer, keep: float
    ) -> None:
        """A layer without its end is refused, unless all that the format reads is left."""
        blob = layer.blob[: int(len(layer.blob) * keep)]
        try:
            contents = within(_SECONDS, lambda: open_layer(blob, layer.descriptor))
        except LazylayerError as error:
            check_refusal(error)
            return
        assert keep > 0.9
        assert contents.toc_digest == open_layer(layer.blob, layer.descriptor).toc_digest

    @pytest.mark.parametrize("seed", range(25))
    def test_damaged_members_never_give_wrong_bytes(
        self, layer: BuiltFormatLayer, open_layer: OpenLayer, seed: int
    ) -> None:
        """A damaged member raises FormatError or gives bytes without the digest that the table promises."""
        contents = open_layer(layer.blob, layer.descriptor)
        chance = random.Random(seed)  # noqa: S311 - no secret
        blob = bytearray(layer.blob)
        start, end = contents.chunks.member_range(chance.randrange(contents.chunks.members))
        blob[chance.randrange(start, end)] ^= 1 << chance.randrange(8)
        for path, entry in contents.tree.walk():
            if entry.is_file:
                try:
                    data = read_chunks(contents, bytes(blob), entry)
                except (LazylayerError, AssertionError):
                    continue
                assert data == read_chunks(contents, layer.blob, entry), path

    def test_tree_is_the_same_each_time(self, make_layer: MakeLayer, open_layer: OpenLayer) -> None:
        """Opening a layer again gives the same entries, with the same inode numbers."""
        layer = make_layer(odd_archive())
        one, other = (open_layer(layer.blob, layer.descriptor) for _ in range(2))
        for (path, entry), (another, same) in zip(one.tree.walk(), other.tree.walk(), strict=True):
            assert (path, entry.ino) == (another, same.ino)
            assert facts_of(entry, lambda _: b"") == facts_of(same, lambda _: b"")


def _damaged(blob: bytes, seed: int) -> bytes:
    chance = random.Random(seed)  # noqa: S311 - no secret
    data = bytearray(blob)
    for _ in range(chance.randrange(1, 4)):
        near_the_end = chance.random() < 0.7
        place = chance.randrange(max(0, len(data) - _TAIL), len(data)) if near_the_end else chance.randrange(len(data))
        kind = chance.randrange(4)
        if kind == 0:
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            data[place : place + 8] = chance.choice((b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7))
        else:
            del data[place : place + chance.randrange(1, 16)]
    return bytes(data)


def _check_bounds(contents: LayerContents, blob: bytes) -> None:
    table = contents.chunks
    for number in range(len(table)):
        chunk = table[number]
        start, end = table.member_range(table.member_of(number))
        assert 0 <= start < end <= len(blob)
        assert 0 < chunk.size <= chunk.inner + chunk.size <= MAX_CHUNK_SIZE
    for _, entry in contents.tree.walk():
        assert 0 <= entry.first_chunk <= entry.first_chunk + entry.chunk_count <= len(table)
        assert 0 <= entry.size < 1 << 63
