"""Convert images so that they start lazily: a format plugin builds every layer anew.

Layers are streamed from their source through a decompressor and a builder into a temporary file, and from there to
the destination. Everything that is read is verified against its digest. The image is visible at the destination only
once it is complete.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Container, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from lazylayer.api.decoding import decode_json
from lazylayer.api.oci import Descriptor, Digest, Index, MediaType, Platform, Reference, ResolvedImage
from lazylayer.errors import BuildError, FormatError
from lazylayer.layers import companion_reference
from lazylayer_building import BuildOptions, CompanionLayer, ImageStore
from lazylayer_building.stores import open_store
from lazylayer_manifests import images_of
from lazylayer_tool_images.building import is_promised
from lazylayer_tool_images.companionimages import write_companions
from lazylayer_tool_images.imagewriting import image_config, write_image
from lazylayer_tool_images.layerconversion import Choose, ConvertedLayer, LayerConverter
from lazylayer_tool_images.prefetchchoice import PrefetchChoice
from lazylayer_tool_images.profiles import ProfileEntry

if TYPE_CHECKING:
    from lazylayer.program import Hooks

__all__ = ["Conversion", "ConversionOptions", "ConversionReport", "LayerReport"]

LAYERS_AT_ONCE = 2
"""One is read while another is written; compression uses all cores anyway."""


class ConversionOptions(msgspec.Struct, frozen=True):
    """Options of a conversion. `reuse` takes over layers that are in a lazy format already.

    `profile` names the files to put first, each in its layer. Its files without a layer, and the files that
    `prefetch_globs` match (see `lazylayer_tool_images.profiles`), are those that the image shows.
    """

    format: str = "estargz"
    build: BuildOptions = BuildOptions()
    reuse: bool = False
    profile: tuple[ProfileEntry, ...] = ()
    prefetch_globs: tuple[bytes, ...] = ()


class LayerReport(msgspec.Struct, frozen=True):
    """The outcome for one layer; sizes in bytes, `source_size` that of the source."""

    source: str
    source_size: int
    result: Descriptor
    reused: bool


class ConversionReport(msgspec.Struct, frozen=True):
    """The outcome of a conversion: the manifest's descriptor, and its layers, lowest first."""

    manifest: Descriptor
    layers: tuple[LayerReport, ...]


class _Done(NamedTuple):
    """A layer at the destination: its report, its diff ID, and its companions."""

    report: LayerReport
    diff_id: Digest
    companions: tuple[CompanionLayer, ...]


class Conversion:
    """Converts an image, or those of several platforms, for one destination. Used by one thread.

    `advance` is called, from any thread, with the number of bytes of the source that were read.
    """

    def __init__(
        self,
        hooks: Hooks,
        destination: Reference,
        options: ConversionOptions,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._hooks = hooks
        self._destination = destination
        self._options = options
        self._advance = advance
        self._abandoned = False
        self._converter = LayerConverter(hooks, options.format, self._count)

    def convert_image(self, image: ResolvedImage) -> ConversionReport:
        """Convert a resolved image. Raises ResolveError, LayerError or BuildError."""
        with self._open_store() as store:
            config, done = self._convert_layers(image, store)
            self._write_companions(store, done, _platform(image))
            return self._write_image(store, config, done, image.manifest.annotations)

    def convert_platforms(self, reference: Reference) -> list[ConversionReport]:
        """Convert the images of all platforms and write an index; report each image, then the index.

        An image without an index is converted by itself. Raises the errors of `convert_image`.
        """
        first = self._hooks.resolve_image(reference, Platform())
        if first.index is None:
            return [self.convert_image(first)]
        reports: list[ConversionReport] = []
        entries: list[Descriptor] = []
        all_done: list[_Done] = []
        with self._open_store() as store:
            for entry in images_of(first.index):
                named = msgspec.structs.replace(reference, tag="", digest=entry.digest)
                image = self._hooks.resolve_image(named, entry.platform or Platform())
                config, done = self._convert_layers(image, store)
                all_done += done
                reports.append(self._write_image(store, config, done, image.manifest.annotations, named=False))
                platform = entry.platform or _platform(image)
                entries.append(msgspec.structs.replace(reports[-1].manifest, annotations={}, platform=platform))
            self._write_companions(store, all_done, _platform(first))
            index = Index(entries, 2, MediaType.OCI_INDEX, first.index.annotations)
            descriptor = store.put_manifest(self._destination, MediaType.OCI_INDEX, msgspec.json.encode(index))
        return [*reports, ConversionReport(descriptor, ())]

    def convert_directory(self, directory: Path, platform: Platform) -> ConversionReport:
        """Make an image of one layer from a directory tree on this machine. Raises BuildError."""
        from lazylayer_tool_images.directorytar import DirectoryArchive

        archive = _Counting(DirectoryArchive(directory), self._advance)
        with self._open_store() as store:
            choose = self._chooser(self._prefetch_choice(1), 0)
            with closing(self._converter.build(archive, self._build_options(0), choose)) as layer:
                layer.put(store)
            report = LayerReport(str(directory), archive.size, layer.descriptor, reused=False)
            done = [_Done(report, layer.diff_id, layer.companions)]
            config = image_config(platform, [layer.diff_id], "lazylayer convert")
            self._write_companions(store, done, platform)
            return self._write_image(store, config, done, {})

    @contextmanager
    def _open_store(self) -> Iterator[ImageStore]:
        if self._options.build.external_toc:
            # Refuse a destination without a place for it before hours of work.
            companion_reference(self._destination, "")
        with closing(open_store(self._hooks, self._destination)) as store:
            yield store

    def _count(self, size: int) -> None:
        """Count bytes that were read. Raises BuildError in threads whose result is not wanted any more."""
        if self._abandoned:
            raise BuildError("the conversion was abandoned")
        self._advance(size)

    # --- layers ------------------------------------------------------------------------------------

    def _convert_layers(self, image: ResolvedImage, store: ImageStore) -> tuple[bytes, list[_Done]]:
        """Convert all layers, write them in order, and return the config for them too.

        A layer that occurs twice is converted once, unless different files of it come first.
        """
        diff_ids = image.config.rootfs.diff_ids
        layers = image.manifest.layers
        if len(diff_ids) != len(layers):
            raise FormatError(f"{image.reference}: {len(layers)} layers, but the config lists {len(diff_ids)}")
        choice = self._prefetch_choice(len(layers))
        wanted = [
            (layer.digest, self._build_options(number), number if choice is not None else 0)
            for number, layer in enumerate(layers)
        ]
        # A choice is made from the uppermost layer down.
        order = sorted({wanted.index(each) for each in wanted}, reverse=choice is not None)
        results: dict[tuple[Digest, BuildOptions, int], _Done] = {}
        with closing(self._convert_ahead(image, order, choice)) as conversions:
            for number, conversion in conversions:
                layer = layers[number]
                if conversion is None:
                    companions = self._converter.reuse(image.reference, layer, store, self._chooser(choice, number))
                    result, diff_id = layer, diff_ids[number]
                else:
                    with closing(conversion.result()) as converted:
                        converted.put(store)
                    result, diff_id, companions = converted.descriptor, converted.diff_id, converted.companions
                report = LayerReport(layer.digest, layer.size, result, reused=conversion is None)
                results[wanted[number]] = _Done(report, diff_id, companions)
        void = self._hooks.formats().annotations
        done = [_described_as(layer, results[each], void) for layer, each in zip(layers, wanted, strict=True)]
        return _with_diff_ids(image, [each.diff_id for each in done]), done

    def _convert_ahead(
        self, image: ResolvedImage, numbers: Iterable[int], choice: PrefetchChoice | None
    ) -> Generator[tuple[int, Future[ConvertedLayer] | None], None, None]:
        """Yield the conversion of each layer in order, None for a reused one; the next run meanwhile."""
        waiting: deque[tuple[int, Future[ConvertedLayer] | None]] = deque()
        with ThreadPoolExecutor(LAYERS_AT_ONCE, "lazylayer-convert") as threads:
            try:
                for number in numbers:
                    waiting.append((number, self._submit(threads, image, number, choice)))
                    if len(waiting) > LAYERS_AT_ONCE:
                        yield waiting.popleft()
                while waiting:
                    yield waiting.popleft()
            except BaseException:
                self._abandoned = True
                raise
            finally:
                if choice is not None:
                    choice.abandon()
                threads.shutdown(cancel_futures=True)
                for _, work in waiting:
                    if work is not None and not work.cancelled() and work.exception() is None:
                        work.result().close()

    def _submit(
        self, threads: ThreadPoolExecutor, image: ResolvedImage, number: int, choice: PrefetchChoice | None
    ) -> Future[ConvertedLayer] | None:
        layer, diff_id = image.manifest.layers[number], image.config.rootfs.diff_ids[number]
        if self._options.reuse and is_promised(self._hooks, layer.annotations):
            return None
        build, choose = self._build_options(number), self._chooser(choice, number)
        return threads.submit(self._converter.convert, image.reference, layer, diff_id, build, choose)

    def _prefetch_choice(self, layers: int) -> PrefetchChoice | None:
        """Return the choice among files named for the whole image, or None if there are none."""
        paths = [entry.path for entry in self._options.profile if entry.layer is None]
        globs = self._options.prefetch_globs
        return PrefetchChoice(paths, globs, layers) if paths or globs else None

    def _chooser(self, choice: PrefetchChoice | None, number: int) -> Choose | None:
        return None if choice is None else partial(choice.choose, number)

    def _build_options(self, number: int) -> BuildOptions:
        """Return the options for layer `number`, with the files that the profile names in it."""
        build, profile = self._options.build, self._options.profile
        listed = [entry.path for entry in profile if entry.layer == number]
        return msgspec.structs.replace(build, prefetch=tuple(dict.fromkeys([*listed, *build.prefetch])))

    # --- the image ---------------------------------------------------------------------------------

    def _write_companions(self, store: ImageStore, done: list[_Done], platform: Platform) -> None:
        """Write the companion layers, before the image gets its name, so that its readers find them."""
        layers = [companion for each in done for companion in each.companions]
        if layers:
            write_companions(store, self._destination, layers, platform)

    def _write_image(
        self,
        store: ImageStore,
        config: bytes,
        done: list[_Done],
        annotations: dict[str, str],
        *,
        named: bool = True,
    ) -> ConversionReport:
        layers = tuple(each.report for each in done)
        results = [layer.result for layer in layers]
        manifest = write_image(store, self._destination, config, results, annotations, named=named)
        return ConversionReport(manifest, layers)


def _described_as(layer: Descriptor, done: _Done, void: Container[str]) -> _Done:
    """Return a layer's outcome with those annotations of `layer` that are not `void` for other bytes."""
    if done.report.reused:
        result = layer
    else:
        kept = {key: value for key, value in layer.annotations.items() if key not in void}
        made = done.report.result
        result = msgspec.structs.replace(made, annotations={**kept, **made.annotations})
    return done._replace(report=msgspec.structs.replace(done.report, result=result))


def _with_diff_ids(image: ResolvedImage, diff_ids: list[Digest]) -> bytes:
    """Return the config of an image for new layers; with the same diff IDs it is the same bytes."""
    if diff_ids == image.config.rootfs.diff_ids:
        return image.config_bytes
    config = decode_json(image.config_bytes, dict[str, Any])
    config["rootfs"] = {**config.get("rootfs", {}), "diff_ids": diff_ids}
    return msgspec.json.encode(config)


def _platform(image: ResolvedImage) -> Platform:
    config = image.config
    return Platform(config.architecture, config.os, config.variant)


class _Counting:
    """An archive that counts the bytes that were read of it."""

    def __init__(self, archive: io.RawIOBase, advance: Callable[[int], None]) -> None:
        self._archive = archive
        self._advance = advance
        self.size = 0

    def read(self, size: int) -> bytes:
        """Read and count; see `io.RawIOBase.read`."""
        data = self._archive.read(size) or b""
        self.size += len(data)
        self._advance(len(data))
        return data
