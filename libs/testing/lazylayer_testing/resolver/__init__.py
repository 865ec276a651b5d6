"""The conformance kit for resolvers: what every resolver must do, as tests that a plugin's author runs.

Subclass `ResolverConformance` in a test module of the plugin, and override one fixture::

    import pytest
    from lazylayer_testing.resolver import ResolverConformance

    class MyShelf:
        def __init__(self, server):
            self.server = server
            self.plugin = MyResolver(server.address)

        def put(self, layout, name):
            self.server.import_layout(layout, name)
            return Reference("kit", scheme="shelf", tag=name)

        def damage(self, digest):
            return self.server.flip_a_byte_of(digest)

        def take_away(self):
            self.server.stop()
            return True

        def new_reference(self):
            return None  # nothing can be written

    class TestMyResolver(ResolverConformance):
        @pytest.fixture
        def shelf(self, server):
            return MyShelf(server)

The kit asks the plugin as the core does, through its hooks, without any credentials.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pluggy
import pytest

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.credentials import Credentials
from lazylayer.api.oci import Descriptor, MediaType, Platform, Reference, ResolvedImage, sha256_digest
from lazylayer.api.sources import BlobSource
from lazylayer.errors import LayerError, LazylayerError, NotFoundError, ResolveError, VerificationError
from lazylayer.plugin.registry import make_manager
from lazylayer_building import ImageStore
from lazylayer_testing.comparing import assert_same_bytes
from lazylayer_testing.resolver.images import LayoutImage, write_image, write_index

__all__ = ["ResolverConformance", "ResolverShelf"]

_NAME = "kit"
_SIZES = (100_000, 1, 3000)
_MISSING = sha256_digest(b"missing")


class ResolverShelf(Protocol):
    """A place where the resolver under test finds its images, and the resolver itself."""

    @property
    def plugin(self) -> object:
        """The plugin, configured to read this shelf."""

    def put(self, layout: Path, name: str) -> Reference:
        """Store the image called `name` of an OCI image layout, and return its reference."""

    def damage(self, digest: str) -> bool:
        """Change a byte of a blob or manifest where it is stored. Return False if that is impossible."""

    def take_away(self) -> bool:
        """Make everything unreachable, for good. Return False if that is impossible."""

    def new_reference(self) -> Reference | None:
        """Return a reference to which an image may be written, or None if the plugin writes nothing."""


class _Asked:
    """The plugin's hooks, each answer as it comes."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._hook = manager.hook

    def image(self, reference: Reference, platform: Platform | None = None) -> ResolvedImage | None:
        answer: ResolvedImage | None = self._hook.lazylayer_resolve_image(
            reference=reference, platform=platform or Platform.of_this_machine(), keychain=_no_credentials
        )
        return answer

    def blob(self, reference: Reference, descriptor: Descriptor) -> BlobSource | None:
        answer: BlobSource | None = self._hook.lazylayer_resolve_blob(
            reference=reference, descriptor=descriptor, keychain=_no_credentials
        )
        return answer

    def store(self, reference: Reference) -> ImageStore | None:
        answer: ImageStore | None = self._hook.lazylayer_open_store(reference=reference, keychain=_no_credentials)
        return answer

    def close(self) -> None:
        self._hook.lazylayer_close()


class ResolverConformance:
    """The checks of every resolver. Override `shelf`."""

    @pytest.fixture
    def shelf(self) -> ResolverShelf:
        """To be overridden: an empty shelf, and the resolver that reads it."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture shelf")

    @pytest.fixture
    def asked(self, shelf: ResolverShelf) -> Iterator[Any]:
        """The plugin as the core asks it; closed at the end."""
        manager = make_manager()
        manager.register(shelf.plugin, "resolver")
        asked = _Asked(manager)
        yield asked
        asked.close()

    @pytest.fixture
    def image(self) -> LayoutImage:
        """The image that is on the shelf."""
        return LayoutImage.random(1, *_SIZES)

    @pytest.fixture
    def reference(self, shelf: ResolverShelf, image: LayoutImage, tmp_path: Path) -> Reference:
        """The reference by which it is found."""
        write_image(tmp_path / "kit-image", _NAME, image)
        return shelf.put(tmp_path / "kit-image", _NAME)

    # --- images ----------------------------------------------------------------------------------

    def test_image_is_found(self, asked: _Asked, image: LayoutImage, reference: Reference) -> None:
        """Manifest and config are those that were put, byte by byte."""
        found = asked.image(reference)
        assert found is not None
        assert (found.manifest_bytes, found.config_bytes) == (image.manifest, image.config)
        assert (found.digest, found.media_type) == (image.digest, MediaType.OCI_MANIFEST)
        assert found.reference == reference
        assert [each.digest for each in found.manifest.layers] == [each.digest for each in image.descriptors]
        assert found.config.architecture == image.platform.architecture

    def test_image_is_found_by_digest(self, asked: _Asked, image: LayoutImage, reference: Reference) -> None:
        """A digest in the reference finds the same, and another one nothing."""
        by_digest = msgspec.structs.replace(reference, tag="", digest=image.digest)
        found = asked.image(by_digest)
        assert found is not None
        assert found.manifest_bytes == image.manifest
        with pytest.raises(NotFoundError):
            asked.image(msgspec.structs.replace(reference, tag="", digest=_MISSING))

    def test_platform_is_chosen(self, asked: _Asked, shelf: ResolverShelf, tmp_path: Path) -> None:
        """Of an index that is wanted which is for the platform; where there is none, the error says so."""
        platforms = [Platform("amd64", "linux"), Platform("arm64", "linux", "v8")]
        images = [LayoutImage.random(seed, 100, platform=each) for seed, each in enumerate(platforms)]
        write_index(tmp_path / "kit-index", "many", images)
        reference = shelf.put(tmp_path / "kit-index", "many")
        for platform, image in zip(platforms, images, strict=True):
            found = asked.image(reference, platform)
            assert found is not None
            assert found.manifest_bytes == image.manifest
        with pytest.raises(NotFoundError, match="s390x"):
            asked.image(reference, Platform("s390x", "linux"))

    def test_missing_image_is_not_found(self, asked: _Asked, reference: Reference) -> None:
        """An image that does not exist is a NotFoundError, which names it."""
        missing = msgspec.structs.replace(reference, tag="missing", digest="")
        with pytest.raises(NotFoundError, match="missing"):
            asked.image(missing)

    def test_other_kinds_are_no_answer(self, asked: _Asked, image: LayoutImage, reference: Reference) -> None:
        """A reference of another kind is None, at once, for every hook."""
        other = Reference("kit", scheme="unknown-scheme", tag="1")
        assert asked.image(other) is None
        assert asked.blob(other, image.descriptors[0]) is None
        assert asked.store(other) is None
        assert reference.scheme != other.scheme

    @pytest.mark.parametrize("part", ["manifest", "config"])
    def test_damage_of_an_image_is_noticed(
        self, asked: _Asked, shelf: ResolverShelf, image: LayoutImage, reference: Reference, part: str
    ) -> None:
        """A manifest or config that does not have its digest is an error, never a result."""
        if not shelf.damage(image.digest if part == "manifest" else sha256_digest(image.config)):
            pytest.skip("what is on this shelf cannot be damaged")
        by_digest = msgspec.structs.replace(reference, tag="", digest=image.digest)
        with pytest.raises(VerificationError):
            asked.image(by_digest)

    # --- blobs -----------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "ranges",
        [
            [(0, 100_000)],
            [(0, 1)],
            [(99_999, 100_000)],
            [(5, 6), (7, 8), (50_000, 99_000)],
            [(10, 20), (20, 30)],
            [(start, start + 300) for start in range(0, 100_000, 1000)],
        ],
        ids=["whole", "first", "last", "several", "touching", "hundred"],
    )
    def test_ranges_are_read(
        self, asked: _Asked, image: LayoutImage, reference: Reference, ranges: list[tuple[int, int]]
    ) -> None:
        """The ranges arrive in order, without gaps, and nothing else does."""
        with _open(asked, reference, image.descriptors[0]) as source:
            assert source.size == len(image.layers[0])
            found = _read(source, ranges)
            assert len(found) == len(ranges)
            for piece, (start, end) in zip(found, ranges, strict=True):
                assert_same_bytes(piece, image.layers[0][start:end], f"bytes {start} to {end}")

    def test_every_layer_is_read(self, asked: _Asked, image: LayoutImage, reference: Reference) -> None:
        """The smallest too."""
        for descriptor, layer in zip(image.descriptors, image.layers, strict=True):
            with _open(asked, reference, descriptor) as source:
                (found,) = _read(source, [(0, len(layer))])
                assert_same_bytes(found, layer, descriptor.digest)

    def test_unknown_size_is_found_out(self, asked: _Asked, image: LayoutImage, reference: Reference) -> None:
        """Labels carry no size: a descriptor with 0 is enough."""
        with _open(asked, reference, msgspec.structs.replace(image.descriptors[0], size=0)) as source:
            assert source.size == len(image.layers[0])
            assert _read(source, [(1, 2)]) == [image.layers[0][1:2]]

    def test_threads_read_at_once(self, asked: _Asked, image: LayoutImage, reference: Reference) -> None:
        """Eight threads get their own bytes from one source."""
        layer = image.layers[0]
        with _open(asked, reference, image.descriptors[0]) as source, ThreadPoolExecutor(8) as pool:
            starts = [number * 7919 % 90_000 for number in range(40)]
            found = list(pool.map(lambda start: _read(source, [(start, start + 5000)]), starts))
        assert found == [[layer[start : start + 5000]] for start in starts]

    def test_reader_may_give_up(self, asked: _Asked, image: LayoutImage, reference: Reference) -> None:
        """An iterator that is closed early, or never begun, leaves the source usable."""
        with _open(asked, reference, image.descriptors[0]) as source:
            _close(source.fetch([ByteRange(0, 100_000)]))
            pieces = iter(source.fetch([ByteRange(0, 100_000)]))
            next(pieces)
            _close(pieces)
            assert _read(source, [(0, 10)]) == [image.layers[0][:10]]

    def test_doubts_leave_it_usable(self, asked: _Asked, image: LayoutImage, reference: Reference) -> None:
        """A source that hears of wrong bytes, can be read on: it may be the only one."""
        with _open(asked, reference, image.descriptors[0]) as source:
            for _ in range(3):
                assert source.doubt(VerificationError("these bytes are wrong")) in (True, False)
                assert _read(source, [(0, 10)]) == [image.layers[0][:10]]

    def test_check_and_description(self, asked: _Asked, image: LayoutImage, reference: Reference) -> None:
        """A source that can be read passes the check, and says where its bytes come from, in one line."""
        with _open(asked, reference, image.descriptors[0]) as source:
            source.check()
            _read(source, [(0, 10)])
            said = source.describe()
            assert said.strip()
            assert said.isprintable()
            assert "?" not in said, "a query may hold a signature"

    def test_missing_blob_is_not_found(self, asked: _Asked, reference: Reference) -> None:
        """A blob that does not exist is a NotFoundError, when it is opened or read."""
        with (
            pytest.raises(NotFoundError, match=_MISSING.partition(":")[2]),
            _open(asked, reference, Descriptor(MediaType.OCI_LAYER, _MISSING, 10)) as source,
        ):
            _read(source, [(0, 10)])

    @pytest.mark.parametrize("difference", [-1, 1])
    def test_wrong_size_is_noticed(
        self, asked: _Asked, image: LayoutImage, reference: Reference, difference: int
    ) -> None:
        """A blob that is larger or smaller than promised is an error, when it is opened or read."""
        wrong = msgspec.structs.replace(image.descriptors[0], size=len(image.layers[0]) + difference)
        with pytest.raises((ResolveError, LayerError)), _open(asked, reference, wrong) as source:
            _read(source, [(0, wrong.size)])

    def test_what_is_gone_is_an_error(
        self, asked: _Asked, shelf: ResolverShelf, image: LayoutImage, reference: Reference
    ) -> None:
        """When nothing can be reached any more, checks and reads fail, and say something."""
        with _open(asked, reference, image.descriptors[0]) as source:
            source.check()
            if not shelf.take_away():
                pytest.skip("this shelf cannot be taken away")
            with pytest.raises(ResolveError, match=r"."):
                source.check()
            with pytest.raises(ResolveError, match=r"."):
                _read(source, [(0, 100_000)])

    # --- writing ---------------------------------------------------------------------------------

    def test_image_is_written(self, asked: _Asked, shelf: ResolverShelf, image: LayoutImage) -> None:
        """An image that was written is found, and its blobs are known to be there."""
        reference, store = _open_store(asked, shelf)
        with closing(store):
            for descriptor, data in _blobs(image):
                assert not store.has_blob(descriptor.digest, descriptor.size)
                store.put_blob(descriptor, io.BytesIO(data))
                assert store.has_blob(descriptor.digest, descriptor.size)
            written = store.put_manifest(reference, MediaType.OCI_MANIFEST, image.manifest)
        assert (written.digest, written.size) == (image.digest, len(image.manifest))
        found = asked.image(reference)
        assert found is not None
        assert (found.manifest_bytes, found.config_bytes) == (image.manifest, image.config)

    def test_wrong_blob_is_not_written(self, asked: _Asked, shelf: ResolverShelf, image: LayoutImage) -> None:
        """Data that is not what its descriptor promises is an error, and no blob."""
        _, store = _open_store(asked, shelf)
        descriptor, data = _blobs(image)[0]
        with closing(store):
            for wrong in (data[:-1], data + b"x", data[:-1] + bytes([data[-1] ^ 1])):
                with pytest.raises(LazylayerError):
                    store.put_blob(descriptor, io.BytesIO(wrong))
                assert not store.has_blob(descriptor.digest, descriptor.size)


def _no_credentials(host: str) -> Credentials | None:  # noqa: ARG001 - the type of a keychain
    return None


def _open(asked: _Asked, reference: Reference, descriptor: Descriptor) -> closing[BlobSource]:
    source = asked.blob(reference, descriptor)
    assert source is not None
    return closing(source)


def _read(source: BlobSource, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the bytes of the ranges, after checking how they came."""
    found = [b""] * len(ranges)
    number, at = 0, ranges[0][0]
    for offset, piece in source.fetch([ByteRange(*each) for each in ranges]):
        if at == ranges[number][1]:
            number += 1
            assert number < len(ranges), "more came than was asked for"
            at = ranges[number][0]
        assert offset == at, "a piece came out of its place"
        at += len(piece)
        assert at <= ranges[number][1], "a piece goes beyond its byte_range"
        found[number] += bytes(piece)
    return found


def _close(pieces: Iterator[tuple[int, bytes]]) -> None:
    close = getattr(pieces, "close", None)
    if close is not None:
        close()


def _open_store(asked: _Asked, shelf: ResolverShelf) -> tuple[Reference, ImageStore]:
    reference = shelf.new_reference()
    if reference is None:
        pytest.skip("nothing can be written here")
    store = asked.store(reference)
    assert store is not None
    return reference, store


def _blobs(image: LayoutImage) -> list[tuple[Descriptor, bytes]]:
    config = Descriptor(MediaType.OCI_CONFIG, sha256_digest(image.config), len(image.config))
    return [*zip(image.descriptors, image.layers, strict=True), (config, image.config)]
