"""Checks that a format reads layers as they are, in few requests, and leaves others alone."""

from __future__ import annotations

import gzip
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from lazylayer.api.layers import FormatInfo
from lazylayer.api.oci import Descriptor, MediaType, sha256_digest
from lazylayer.errors import FormatError, VerificationError
from lazylayer_testing.format.archive import facts_of, odd_archive, odd_facts, small_archive
from lazylayer_testing.format.building import OPTIONS
from lazylayer_testing.format.layers import PLUGIN, FormatFixtures, MakeLayer, OpenLayer, read_chunks
from lazylayer_testing.synthetic import MemorySource

__all__ = ["ReadingChecks"]

_FOREIGN = (b"", b"x", bytes(100_000), os.urandom(10_000), small_archive(), gzip.compress(small_archive()))
_MEDIA_TYPES = ("", MediaType.OCI_LAYER, MediaType.OCI_LAYER_GZIP, MediaType.OCI_LAYER_ZSTD)


class ReadingChecks(FormatFixtures):
    """The checks of `lazylayer_open_layer` with layers that are as they should be."""

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_tree_is_that_of_the_archive(
        self, make_layer: MakeLayer, open_layer: OpenLayer, options: dict[str, Any]
    ) -> None:
        """Every path of an odd archive is there, with its type, owner, times, links, attributes and content."""
        layer = make_layer(odd_archive(), **options)
        contents = open_layer(layer.blob, layer.descriptor)
        found = {
            path: facts_of(entry, lambda entry: read_chunks(contents, layer.blob, entry))
            for path, entry in contents.tree.walk()
            if not entry.implicit
        }
        expected = odd_facts()
        whiteouts = {path for path, facts in expected.items() if facts.marks[0]}
        for path in whiteouts & found.keys():
            found[path] = found[path]._replace(mtime=0)
        assert found == expected

    def test_chunks_lie_in_the_blob_and_have_digests(self, make_layer: MakeLayer, open_layer: OpenLayer) -> None:
        """Every chunk of a verified layer has a digest, or its member is sealed; the member lies in the blob."""
        layer = make_layer(odd_archive(), chunk_size=5000)
        table = open_layer(layer.blob, layer.descriptor).chunks
        assert len(table)
        for number in range(len(table)):
            chunk = table[number]
            start, end = table.member_range(table.member_of(number))
            assert chunk.size > 0
            if table.seal_of(table.member_of(number)) is None:
                assert chunk.size <= 5000
                assert len(chunk.digest) == 32
            assert 0 <= start < end <= len(layer.blob)

    def test_opening_reads_little(self, make_layer: MakeLayer, open_layer: OpenLayer) -> None:
        """Opening a layer reads less than its files, in three requests at most."""
        layer = make_layer(odd_archive())
        source = MemorySource(layer.blob)
        open_layer(layer.blob, layer.descriptor, source=source)
        assert len(source.asked) <= 3
        assert source.asked_bytes < len(layer.blob) / 2

    @pytest.mark.parametrize("media_type", _MEDIA_TYPES)
    @pytest.mark.parametrize("number", range(len(_FOREIGN)))
    def test_other_blobs_are_left_to_other_formats(self, open_layer: OpenLayer, media_type: str, number: int) -> None:
        """A blob without the format's marks is not refused, but left: the answer is None."""
        blob = _FOREIGN[number]
        with pytest.raises(FormatError, match=PLUGIN):  # the message of the hooks where no format answers
            open_layer(blob, Descriptor(media_type, sha256_digest(blob), len(blob)))

    def test_layer_without_a_promise_is_opened_only_unverified(
        self, make_layer: MakeLayer, open_layer: OpenLayer, info: FormatInfo
    ) -> None:
        """Without a digest of the table in its annotations a layer cannot be verified."""
        layer = make_layer(small_archive())
        kept = {
            name: value
            for name, value in layer.descriptor.annotations.items()
            if name not in (info.toc_digest_label, *info.other_promises)
        }
        bare = msgspec.structs.replace(layer.descriptor, annotations=kept)
        with pytest.raises(VerificationError):
            open_layer(layer.blob, bare)
        expected = open_layer(layer.blob, layer.descriptor)
        assert open_layer(layer.blob, bare, verify=False).toc_digest == expected.toc_digest

    def test_every_promise_is_checked(self, make_layer: MakeLayer, open_layer: OpenLayer, info: FormatInfo) -> None:
        """An annotation that promises another table makes opening fail, whichever it is."""
        layer = make_layer(small_archive())
        for name in {info.toc_digest_label, *info.other_promises} & layer.descriptor.annotations.keys():
            wrong = {**layer.descriptor.annotations, name: sha256_digest(b"another")}
            with pytest.raises(VerificationError):
                open_layer(layer.blob, msgspec.structs.replace(layer.descriptor, annotations=wrong))

    def test_inflate_gives_exactly_what_is_asked_for(self, make_layer: MakeLayer, open_layer: OpenLayer) -> None:
        """`inflate` returns the first bytes, and raises FormatError where there are fewer."""
        layer = make_layer(odd_archive(), chunk_size=5000)
        contents = open_layer(layer.blob, layer.descriptor)
        table = contents.chunks
        for member in range(0, table.members, 7):
            start, end = table.member_range(member)
            need = table.needed(member)
            data = memoryview(layer.blob)[start:end]
            whole = contents.inflate(data, need, start)
            for size in (0, 1, need // 2, need):
                assert contents.inflate(data, size, start) == whole[:size]
                assert contents.inflate(bytes(data), size, start) == whole[:size]
        start, _ = table.member_range(table.members - 1)
        with pytest.raises(FormatError):
            contents.inflate(layer.blob[start:], 200_000_000, start)

    def test_layer_is_read_from_many_threads(self, make_layer: MakeLayer, open_layer: OpenLayer) -> None:
        """Threads that inflate members at the same time do not disturb each other."""
        layer = make_layer(odd_archive(), chunk_size=20_000)
        contents = open_layer(layer.blob, layer.descriptor)
        files = [entry for _, entry in contents.tree.walk() if entry.is_file]

        def read_all(_: int) -> list[bytes]:
            return [read_chunks(contents, layer.blob, entry) for entry in files]

        with ThreadPoolExecutor(8) as threads:
            first, *others = threads.map(read_all, range(8))
        assert all(other == first for other in others)
