"""The kit for formats passes a format that is right, and a check fails for each way of being wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import IO, Any

import msgspec
import pytest

from lazylayer import hookimpl
from lazylayer.api.layers import FormatInfo, LayerContents
from lazylayer.api.oci import Descriptor, MediaType, sha256_digest
from lazylayer.api.opened import OpenedBlob
from lazylayer.errors import FormatError, LazylayerError, VerificationError
from lazylayer_building import BuildOptions, BuiltLayer
from lazylayer_tarlayers.landmarks import LANDMARKS
from lazylayer_tarlayers.members import Member, MemberWriter
from lazylayer_tarlayers.packing import END_OF_ARCHIVE, pack_archive
from lazylayer_tarlayers.toc import encode_toc
from lazylayer_tarlayers.tocreading import read_toc
from lazylayer_testing.format import FormatConformance
from lazylayer_testing.format.layers import describe, layer_maker, layer_opener

TOC, SIZE = "org.example.tiny.table", "org.example.tiny.size"
MAGIC = b"TINYTINY"
NUMBERS = itertools.count()


class Tiny:
    """Plain tar, a table behind it, a footer. Broken formats override a part."""

    @hookimpl
    def lazylayer_describe_format(self) -> FormatInfo:
        return self.info()

    def info(self) -> FormatInfo:
        return FormatInfo(("tiny",), (TOC, SIZE), TOC, hidden_files=tuple(LANDMARKS))

    @hookimpl
    def lazylayer_open_layer(self, blob: OpenedBlob, descriptor: Descriptor, verify: bool) -> LayerContents | None:
        return self.open(blob, descriptor, verify)

    def open(self, blob: OpenedBlob, descriptor: Descriptor, verify: bool) -> LayerContents | None:
        footer = blob.read(blob.size - 16, 16) if blob.size > 16 else b""
        if footer[8:] != MAGIC:
            return None
        end = int.from_bytes(footer[:8], "little")
        start = end + len(END_OF_ARCHIVE)
        if start > blob.size - 16:
            raise FormatError("the footer lies")
        toc = blob.read(start, blob.size - 16 - start)
        self.check(toc, descriptor, verify)
        tree, chunks = read_toc(toc, blob_size=blob.size, data_end=end, verify=verify)
        return LayerContents("tiny", tree, chunks, sha256_digest(toc), self.inflate)

    def check(self, toc: bytes, descriptor: Descriptor, verify: bool) -> None:
        if verify and descriptor.annotations.get(TOC) != sha256_digest(toc):
            raise VerificationError("the table was not promised")

    def inflate(self, data: bytes | memoryview, size: int, offset: int) -> bytes:
        if len(data) < size:
            raise FormatError(f"a member of {len(data)} bytes, not {size}")
        return bytes(data[:size])

    @hookimpl
    def lazylayer_build_layer(
        self, format: str, source: IO[bytes], destination: IO[bytes], build_options: BuildOptions
    ) -> BuiltLayer:
        return self.build(source, destination, build_options)

    def build(self, source: IO[bytes], destination: IO[bytes], options: BuildOptions) -> BuiltLayer:
        if options.external_toc or options.keep_diff_id:
            from lazylayer.errors import BuildError

            raise BuildError("tiny layers have their tables inside")
        with MemberWriter(destination, bytes, options.jobs) as writer:
            toc = encode_toc(pack_archive(source, writer, options))
            end = writer.size
            rest = Member()
            rest.append(END_OF_ARCHIVE + toc + end.to_bytes(8, "little") + MAGIC)
            writer.add(rest)
            writer.flush()
            annotations = {TOC: sha256_digest(toc), SIZE: str(end)}
            descriptor = Descriptor(MediaType.OCI_LAYER, writer.digest, writer.size, annotations)
            return BuiltLayer(descriptor, writer.plain_digest)


class TestTiny(FormatConformance):
    """The whole kit, on a format that is right."""

    @pytest.fixture
    def plugin(self) -> object:
        return Tiny()


class ForgetsThePromise(Tiny):
    def check(self, toc: bytes, descriptor: Descriptor, verify: bool) -> None:
        pass


class TakesEverything(Tiny):
    def open(self, blob: OpenedBlob, descriptor: Descriptor, verify: bool) -> LayerContents | None:
        contents = super().open(blob, descriptor, verify)
        if contents is None:
            raise FormatError("no footer")
        return contents


class CrashesOnLies(Tiny):
    def open(self, blob: OpenedBlob, descriptor: Descriptor, verify: bool) -> LayerContents | None:
        try:
            return super().open(blob, descriptor, verify)
        except LazylayerError as error:
            raise KeyError("entry") from error


class ReadsAll(Tiny):
    def open(self, blob: OpenedBlob, descriptor: Descriptor, verify: bool) -> LayerContents | None:
        blob.read(0, blob.size)
        return super().open(blob, descriptor, verify)


class InflatesTooMuch(Tiny):
    def inflate(self, data: bytes | memoryview, size: int, offset: int) -> bytes:
        return bytes(data)


class InflatesTooLittle(Tiny):
    def inflate(self, data: bytes | memoryview, size: int, offset: int) -> bytes:
        return bytes(data[:size])


class NeverTheSame(Tiny):
    def build(self, source: IO[bytes], destination: IO[bytes], options: BuildOptions) -> BuiltLayer:
        size = 5000 + next(NUMBERS) % 2
        return super().build(source, destination, msgspec.structs.replace(options, chunk_size=size))


class WrongDigest(Tiny):
    def build(self, source: IO[bytes], destination: IO[bytes], options: BuildOptions) -> BuiltLayer:
        built = super().build(source, destination, options)
        return msgspec.structs.replace(built, diff_id=sha256_digest(b""))


class HidesNothing(Tiny):
    def info(self) -> FormatInfo:
        return msgspec.structs.replace(super().info(), hidden_files=())


class OtherAnnotations(Tiny):
    def info(self) -> FormatInfo:
        return FormatInfo(("tiny",), (TOC,), TOC, hidden_files=tuple(LANDMARKS))


class OtherName(Tiny):
    def info(self) -> FormatInfo:
        return FormatInfo(("small",), (TOC, SIZE), TOC, hidden_files=tuple(LANDMARKS))


class OtherLabel(Tiny):
    def info(self) -> FormatInfo:
        return FormatInfo(("tiny",), (TOC, SIZE), SIZE, hidden_files=tuple(LANDMARKS))


class OddName(Tiny):
    def info(self) -> FormatInfo:
        return msgspec.structs.replace(super().info(), names=("tiny", "Tiny Format"))


class CrashesOnBrokenArchives(Tiny):
    def build(self, source: IO[bytes], destination: IO[bytes], options: BuildOptions) -> BuiltLayer:
        try:
            return super().build(source, destination, options)
        except LazylayerError as error:
            raise ValueError("archive") from error


class LosesFiles(Tiny):
    def open(self, blob: OpenedBlob, descriptor: Descriptor, verify: bool) -> LayerContents | None:
        contents = super().open(blob, descriptor, verify)
        if contents is not None and contents.tree.root.children is not None:
            contents.tree.root.children.pop(b"broken", None)
        return contents


Check = Callable[[FormatConformance, Tiny], object]
KIT = FormatConformance()


def with_layers(name: str, *arguments: Any) -> Callable[[Tiny], object]:
    return lambda plugin: getattr(KIT, name)(layer_maker(plugin), layer_opener(plugin), *arguments)


def with_info(name: str) -> Callable[[Tiny], object]:
    return lambda plugin: getattr(KIT, name)(describe(plugin), layer_maker(plugin), layer_opener(plugin))


def every(seeds: int, check: Callable[[Tiny, int], object]) -> Callable[[Tiny], object]:
    def run(plugin: Tiny) -> None:
        for seed in range(seeds):
            check(plugin, seed)

    return run


def damage(plugin: Tiny, seed: int) -> None:
    KIT.test_lies_are_bounded(layer_maker(plugin)(ARCHIVE, chunk_size=1000), layer_opener(plugin), seed)


ARCHIVE = bytes(1024)
BROKEN: list[tuple[type[Tiny], Callable[[Tiny], object]]] = [
    (ForgetsThePromise, lambda plugin: KIT.test_every_promise_is_checked(
        layer_maker(plugin), layer_opener(plugin), describe(plugin))),
    (ForgetsThePromise, lambda plugin: KIT.test_layer_without_a_promise_is_opened_only_unverified(
        layer_maker(plugin), layer_opener(plugin), describe(plugin))),
    (TakesEverything, lambda plugin: KIT.test_other_blobs_are_left_to_other_formats(layer_opener(plugin), "", 3)),
    (CrashesOnLies, every(300, damage)),
    (ReadsAll, with_layers("test_opening_reads_little")),
    (InflatesTooMuch, with_layers("test_inflate_gives_exactly_what_is_asked_for")),
    (InflatesTooLittle, with_layers("test_inflate_gives_exactly_what_is_asked_for")),
    (NeverTheSame, lambda plugin: KIT.test_same_input_gives_the_same_bytes(layer_maker(plugin), {})),
    (WrongDigest, lambda plugin: KIT.test_layer_is_an_ordinary_layer(layer_maker(plugin), describe(plugin), {})),
    (HidesNothing, lambda plugin: KIT.test_layer_is_an_ordinary_layer(layer_maker(plugin), describe(plugin), {})),
    (OtherAnnotations, with_info("test_built_layers_promise_what_they_hold")),
    (OtherName, with_info("test_built_layers_promise_what_they_hold")),
    (OtherLabel, with_info("test_built_layers_promise_what_they_hold")),
    (OddName, lambda plugin: KIT.test_names_are_words(describe(plugin))),
    (CrashesOnBrokenArchives, lambda plugin: KIT.test_what_is_not_an_archive_is_refused(layer_maker(plugin), b"x")),
    (LosesFiles, with_layers("test_tree_is_that_of_the_archive", {})),
]  # fmt: skip


@pytest.mark.parametrize(("broken", "check"), BROKEN, ids=lambda each: getattr(each, "__name__", ""))
def test_what_is_wrong_fails(broken: type[Tiny], check: Callable[[Tiny], object]) -> None:
    check(Tiny())
    with pytest.raises((AssertionError, pytest.fail.Exception, LazylayerError)):
        check(broken())
