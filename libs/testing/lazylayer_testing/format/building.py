"""Checks that a format builds ordinary, reproducible layers, and refuses what it cannot build."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
from typing import Any

import pytest

from lazylayer.api.layers import FormatInfo
from lazylayer.api.oci import sha256_digest
from lazylayer.errors import BuildError, LazylayerError
from lazylayer_testing.format.archive import odd_archive, small_archive
from lazylayer_testing.format.layers import FormatFixtures, MakeLayer, check_refusal, plain_bytes, within

__all__ = ["BuildingChecks"]

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"chunk_size": 5000},
    {"min_chunk_size": 100_000},
    {"prefetch": (b"large", b"bin/login", b"linked/c", b"not there")},
)
"""The options that archives are built with."""

_SECONDS = 60


class BuildingChecks(FormatFixtures):
    """The checks of `lazylayer_build_layer`."""

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_same_input_gives_the_same_bytes(self, make_layer: MakeLayer, options: dict[str, Any]) -> None:
        """Building again, and with another number of threads, changes nothing."""
        first = make_layer(odd_archive(), **options)
        for jobs in (1, 3, 0):
            same = make_layer(odd_archive(), jobs=jobs, **options) == first
            assert same, f"other bytes with jobs={jobs}"  # a comparison of the bytes would be printed for minutes

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_layer_is_an_ordinary_layer(self, make_layer: MakeLayer, info: FormatInfo, options: dict[str, Any]) -> None:
        """Digest, size and diff ID are those of the bytes; any runtime finds the archive's members in it."""
        layer = make_layer(odd_archive(), **options)
        assert (layer.descriptor.digest, layer.descriptor.size) == (sha256_digest(layer.blob), len(layer.blob))
        plain = plain_bytes(layer)
        assert layer.built.diff_id == sha256_digest(plain)
        expected, found = _members(odd_archive()), _members(plain)
        assert {name: facts for name, facts in found.items() if name in expected} == expected
        assert found.keys() - expected.keys() <= {name.decode() for name in info.hidden_files}

    def test_every_name_builds_or_says_why_not(self, make_layer: MakeLayer, info: FormatInfo) -> None:
        """A name that is only read raises BuildError."""
        built = 0
        for name in info.names:
            try:
                make_layer(small_archive(), name)
                built += 1
            except BuildError as error:
                check_refusal(error)
        assert built

    @pytest.mark.parametrize("option", ["external_toc", "keep_diff_id"])
    def test_option_is_kept_or_refused(self, make_layer: MakeLayer, option: str) -> None:
        """`external_toc` gives companions, `keep_diff_id` the archive's digest; a format may refuse both."""
        options = {"external_toc": True, "keep_diff_id": option == "keep_diff_id"}
        try:
            layer = make_layer(small_archive(), **options)
        except BuildError:
            return
        assert layer.built.companions
        if option == "keep_diff_id":
            assert layer.built.diff_id == sha256_digest(small_archive())

    def test_empty_archive_is_built(self, make_layer: MakeLayer) -> None:
        """A layer may hold nothing."""
        assert make_layer(bytes(1024)).blob

    @pytest.mark.parametrize("seed", range(30))
    def test_broken_archive_is_refused_or_built(self, make_layer: MakeLayer, seed: int) -> None:
        """Damage ends in an error of lazylayer's, or in a layer; never in another error, nor in a hang."""
        chance = random.Random(seed)  # noqa: S311 - no secret
        archive = bytearray(small_archive())
        for _ in range(chance.randrange(1, 4)):
            archive[chance.randrange(len(archive))] = chance.randrange(256)
        if chance.random() < 0.3:
            del archive[chance.randrange(len(archive)) :]
        try:
            within(_SECONDS, lambda: make_layer(bytes(archive)))
        except LazylayerError as error:
            check_refusal(error)

    @pytest.mark.parametrize("archive", [b"x", b"x" * 511, b"x" * 5000, odd_archive()[:-100_000]])
    def test_what_is_not_an_archive_is_refused(self, make_layer: MakeLayer, archive: bytes) -> None:
        """An archive that is cut short, or none, raises an error of lazylayer's."""
        with pytest.raises(LazylayerError) as caught:
            within(_SECONDS, lambda: make_layer(archive))
        check_refusal(caught.value)


def _members(plain: bytes) -> dict[str, tuple[object, ...]]:
    """Return what Python's tarfile finds in an archive, by name; the last of those of one name."""
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(plain), errors="surrogateescape", encoding="utf-8") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            digest = hashlib.sha256(content.read()).hexdigest() if content is not None else ""
            xattrs = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")}
            found[member.name] = (
                *(member.type, member.mode, member.uid, member.gid, member.mtime, member.linkname),
                *(member.devmajor, member.devminor, member.size, digest, sorted(xattrs.items())),
            )
    return found
