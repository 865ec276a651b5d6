"""The kit for resolvers passes one that is right, and each of these wrong ones fails one of its checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from lazylayer import hookimpl
from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import (
    Descriptor,
    Digest,
    Index,
    Manifest,
    MediaType,
    Platform,
    Reference,
    ResolvedImage,
    sha256_digest,
)
from lazylayer.api.sources import BlobSource
from lazylayer.errors import LazylayerError, NotFoundError, UnavailableError, VerificationError
from lazylayer.plugin.registry import make_manager
from lazylayer_manifests import choose_manifest, decode_config, decode_manifest_or_index
from lazylayer_testing.resolver import ResolverConformance, ResolverShelf, _Asked
from lazylayer_testing.resolver.images import LayoutImage, write_image


class MemoryResolver:
    """Keeps layouts in memory; the parts that the wrong ones get wrong are methods of their own."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.names: dict[str, str] = {}
        self.gone = False

    @hookimpl
    def lazylayer_resolve_image(self, reference: Reference, platform: Platform) -> ResolvedImage | None:
        if not self.is_ours(reference):
            return None
        digest = self.find(reference)
        content = decode_manifest_or_index(self.verified(digest), "it")
        if isinstance(content, Index):
            digest = self.choose(content, platform)
            content = decode_manifest_or_index(self.verified(digest), "it")
        assert isinstance(content, Manifest)
        config = self.verified(content.config.digest)
        return ResolvedImage(
            reference, digest, MediaType.OCI_MANIFEST, content, decode_config(config, "it"), self.blobs[digest], config
        )

    @hookimpl
    def lazylayer_resolve_blob(self, reference: Reference, descriptor: Descriptor) -> BlobSource | None:
        return MemoryBlob(self, descriptor) if self.is_ours(reference) else None

    def is_ours(self, reference: Reference) -> bool:
        return reference.scheme == "memory"

    def find(self, reference: Reference) -> Digest:
        digest = Digest(reference.digest or self.names.get(reference.tag, ""))
        if digest not in self.blobs:
            raise NotFoundError(f"there is no {reference}")
        return digest

    def choose(self, index: Index, platform: Platform) -> Digest:
        return choose_manifest(index, platform, "it").digest

    def verified(self, digest: str) -> bytes:
        data = self.blobs[digest]
        if sha256_digest(data) != digest:
            raise VerificationError(f"{digest} is damaged")
        return data

    def check_size(self, descriptor: Descriptor, data: bytes) -> None:
        if descriptor.size not in (0, len(data)):
            raise UnavailableError("it has another size")

    def pieces(self, data: bytes, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        for start, end in ranges:
            for at in range(start, end, 4096):
                yield at, data[at : min(end, at + 4096)]


class MemoryBlob(BlobSource):
    def __init__(self, resolver: MemoryResolver, descriptor: Descriptor) -> None:
        if descriptor.digest not in resolver.blobs:
            raise NotFoundError(f"there is no {descriptor.digest}")
        self.resolver = resolver
        self.data = resolver.blobs[descriptor.digest]
        resolver.check_size(descriptor, self.data)
        self.size = len(self.data)

    def fetch(self, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        self.check()
        return self.resolver.pieces(self.data, ranges)

    def check(self) -> None:
        if self.resolver.gone:
            raise UnavailableError("it is gone")


class MemoryShelf:
    def __init__(self, plugin: MemoryResolver) -> None:
        self.plugin = plugin

    def put(self, layout: Path, name: str) -> Reference:
        for file in (layout / "blobs" / "sha256").iterdir():
            self.plugin.blobs[f"sha256:{file.name}"] = file.read_bytes()
        (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
        self.plugin.names[name] = entry["digest"]
        return Reference("kit", scheme="memory", tag=name)

    def damage(self, digest: str) -> bool:
        self.plugin.blobs[digest] = self.plugin.blobs[digest][:-1] + b" "
        return True

    def take_away(self) -> bool:
        self.plugin.gone = True
        return True

    def new_reference(self) -> None:
        return None


class TestMemoryResolver(ResolverConformance):
    @pytest.fixture
    def shelf(self) -> ResolverShelf:
        return MemoryShelf(MemoryResolver())


class Greedy(MemoryResolver):
    def is_ours(self, reference: Reference) -> bool:
        return True


class Deaf(MemoryResolver):
    def find(self, reference: Reference) -> Digest:
        return super().find(msgspec.structs.replace(reference, digest="", tag="kit"))


class FirstPlatform(MemoryResolver):
    def choose(self, index: Index, platform: Platform) -> Digest:
        return index.manifests[0].digest


class Credulous(MemoryResolver):
    def verified(self, digest: str) -> bytes:
        return self.blobs[digest]


class Careless(MemoryResolver):
    def check_size(self, descriptor: Descriptor, data: bytes) -> None:
        pass


class Shifted(MemoryResolver):
    def pieces(self, data: bytes, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        for at, piece in super().pieces(data, ranges):
            yield at, piece[1:] + piece[:1]


class Overfull(MemoryResolver):
    def pieces(self, data: bytes, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        for start, _ in ranges:
            yield start, data[start:]


class Backwards(MemoryResolver):
    def pieces(self, data: bytes, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        return reversed(list(super().pieces(data, ranges)))


class Short(MemoryResolver):
    def pieces(self, data: bytes, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        return iter(list(super().pieces(data, ranges))[:-1])


class Undying(MemoryResolver):
    gone = property(lambda _: False, lambda _, value: None)


class Sulking(MemoryResolver):
    @hookimpl
    def lazylayer_resolve_blob(self, reference: Reference, descriptor: Descriptor) -> BlobSource | None:
        return SulkingBlob(self, descriptor) if self.is_ours(reference) else None


class SulkingBlob(MemoryBlob):
    def doubt(self, error: Exception) -> bool:
        self.resolver.gone = True
        return super().doubt(error)


Check = Callable[[ResolverConformance, _Asked, MemoryShelf, LayoutImage, Reference, Path], None]
WHOLE = [(0, 100_000)]
WRONG: list[tuple[type[MemoryResolver], Check]] = [
    (Greedy, lambda kit, asked, shelf, image, ref, tmp: kit.test_other_kinds_are_no_answer(asked, image, ref)),
    (Deaf, lambda kit, asked, shelf, image, ref, tmp: kit.test_missing_image_is_not_found(asked, ref)),
    (Deaf, lambda kit, asked, shelf, image, ref, tmp: kit.test_image_is_found_by_digest(asked, image, ref)),
    (FirstPlatform, lambda kit, asked, shelf, image, ref, tmp: kit.test_platform_is_chosen(asked, shelf, tmp)),
    (
        Credulous,
        lambda kit, asked, shelf, image, ref, tmp: kit.test_damage_of_an_image_is_noticed(
            asked, shelf, image, ref, "config"
        ),
    ),
    (Careless, lambda kit, asked, shelf, image, ref, tmp: kit.test_wrong_size_is_noticed(asked, image, ref, -1)),
    (Shifted, lambda kit, asked, shelf, image, ref, tmp: kit.test_ranges_are_read(asked, image, ref, WHOLE)),
    (Overfull, lambda kit, asked, shelf, image, ref, tmp: kit.test_ranges_are_read(asked, image, ref, [(0, 10)])),
    (Backwards, lambda kit, asked, shelf, image, ref, tmp: kit.test_ranges_are_read(asked, image, ref, WHOLE)),
    (Short, lambda kit, asked, shelf, image, ref, tmp: kit.test_ranges_are_read(asked, image, ref, WHOLE)),
    (Sulking, lambda kit, asked, shelf, image, ref, tmp: kit.test_doubts_leave_it_usable(asked, image, ref)),
    (Undying, lambda kit, asked, shelf, image, ref, tmp: kit.test_what_is_gone_is_an_error(asked, shelf, image, ref)),
]


@pytest.mark.parametrize(("resolver", "check"), WRONG, ids=[each.__name__ for each, _ in WRONG])
def test_wrong_resolver_fails(resolver: type[MemoryResolver], check: Check, tmp_path: Path) -> None:
    shelf = MemoryShelf(resolver())
    image = LayoutImage.random(1, 100_000, 1, 3000)
    write_image(tmp_path / "layout", "kit", image)
    reference = shelf.put(tmp_path / "layout", "kit")
    manager = make_manager()
    manager.register(shelf.plugin, "resolver")
    with pytest.raises((AssertionError, LazylayerError, pytest.fail.Exception)):
        check(ResolverConformance(), _Asked(manager), shelf, image, reference, tmp_path)
