"""Converts images into such that start lazily: every layer is built anew, by a format plugin.

Layers are streamed: from their source through a decompressor and a builder into a temporary file,
and from there to the destination. Everything that is read is verified against its digest, and the
destination sees the image only when all of it is there.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from lazylayer.building import BuildOptions, BuiltLayer, ImageStore
from lazylayer.errors import BuildError, FormatError, LayerError
from lazylayer.labels import LAYER_FORMAT_ANNOTATIONS, TOC_DIGEST, ZSTD_TOC_CHECKSUM
from lazylayer.layerstreams import BlobStream, PlainLayer
from lazylayer.oci import (
    Descriptor,
    Digest,
    Manifest,
    MediaType,
    Platform,
    Reference,
    ResolvedImage,
    sha256_digest,
)
from lazylayer.profiles import ProfileEntry

if TYPE_CHECKING:
    from lazylayer.hooks import Hooks

__all__ = ["Conversion", "ConversionOptions", "ConversionReport", "LayerReport"]


_LAZY = {TOC_DIGEST, ZSTD_TOC_CHECKSUM}


class ConversionOptions(msgspec.Struct, frozen=True):
    """How to convert. `reuse` takes layers over that are in a lazy format already.

    `profile` names the files to put first, each in its layer, in front of what `build.prefetch` and
    `build.prefetch_globs` name in all layers.
    """

    format: str = "estargz"
    build: BuildOptions = BuildOptions()
    reuse: bool = False
    profile: tuple[ProfileEntry, ...] = ()


class LayerReport(msgspec.Struct, frozen=True):
    """What became of a layer; sizes in bytes, `source_size` as it was at the source."""

    source: str
    source_size: int
    result: Descriptor
    reused: bool


class ConversionReport(msgspec.Struct, frozen=True):
    """What a conversion made: the manifest's descriptor, and its layers, lowest first."""

    manifest: Descriptor
    layers: tuple[LayerReport, ...]


class Conversion:
    """Converts one image for one destination. Used by one thread.

    `advance` is told how many bytes of the source were read, each time.
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
        self._known: dict[tuple[Digest, BuildOptions], tuple[LayerReport, Digest]] = {}

    def convert_image(self, image: ResolvedImage) -> ConversionReport:
        """Converts an image that was resolved. Raises ResolveError, LayerError or BuildError."""
        diff_ids = image.config.rootfs.diff_ids
        layers = image.manifest.layers
        if len(diff_ids) != len(layers):
            raise FormatError(f"{image.reference}: {len(layers)} layers, but the config lists {len(diff_ids)}")
        with closing(self._hooks.open_store(self._destination)) as store:
            done = [
                self._convert_layer(image.reference, number, layer, diff_id, store)
                for number, (layer, diff_id) in enumerate(zip(layers, diff_ids, strict=True))
            ]
            config = msgspec.json.decode(image.config_bytes)
            config["rootfs"] = {**config.get("rootfs", {}), "diff_ids": [diff_id for _, diff_id in done]}
            return self._write_image(store, config, [report for report, _ in done], image.manifest.annotations)

    def convert_directory(self, directory: Path, platform: Platform) -> ConversionReport:
        """Makes an image of one layer out of a directory tree on this machine. Raises BuildError."""
        from lazylayer.directorytar import DirectoryArchive

        with closing(self._hooks.open_store(self._destination)) as store, tempfile.TemporaryFile() as spool:
            archive = _Counting(DirectoryArchive(directory), self._advance)
            built = self._build(archive, spool, str(directory), self._build_options(0))
            self._put(store, built.descriptor, spool)
            config = {
                "architecture": platform.architecture,
                "os": platform.os,
                **({"variant": platform.variant} if platform.variant else {}),
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [built.diff_id]},
                "history": [{"created_by": "lazylayer convert"}],
            }
            report = LayerReport(str(directory), archive.size, built.descriptor, reused=False)
            return self._write_image(store, config, [report], {})

    # --- layers ------------------------------------------------------------------------------------

    def _convert_layer(
        self, reference: Reference, number: int, layer: Descriptor, diff_id: Digest, store: ImageStore
    ) -> tuple[LayerReport, Digest]:
        build = self._build_options(number)
        known = self._known.get((layer.digest, build))
        if known is not None:
            self._advance(layer.size)
            return known
        with closing(self._hooks.resolve_blob(reference, layer)) as source:
            stream = BlobStream(source, layer, self._advance)
            with closing(stream):
                if self._options.reuse and not _LAZY.isdisjoint(layer.annotations):
                    result = self._reuse(stream, layer, store), diff_id
                else:
                    result = self._rebuild(stream, layer, diff_id, store, build)
        self._known[layer.digest, build] = result
        return result

    def _build_options(self, number: int) -> BuildOptions:
        """How to build layer `number`, with what the profile says of it."""
        build, profile = self._options.build, self._options.profile
        listed = [entry.path for entry in profile if entry.layer is None or entry.layer == number]
        prefetch = tuple(dict.fromkeys([*listed, *build.prefetch]))
        return msgspec.structs.replace(build, prefetch=prefetch, prefetch_globs=tuple(build.prefetch_globs))

    def _reuse(self, stream: BlobStream, layer: Descriptor, store: ImageStore) -> LayerReport:
        if store.has_blob(layer.digest, layer.size):
            self._advance(layer.size)
        else:
            store.put_blob(layer, stream)  # type: ignore[arg-type] # it has the one method that is needed
        return LayerReport(layer.digest, layer.size, layer, reused=True)

    def _rebuild(
        self, stream: BlobStream, layer: Descriptor, diff_id: Digest, store: ImageStore, build: BuildOptions
    ) -> tuple[LayerReport, Digest]:
        with tempfile.TemporaryFile() as spool, closing(PlainLayer(stream, diff_id)) as plain:
            try:
                built = self._build(plain, spool, layer.digest, build)
                plain.finish()
            except (LayerError, BuildError) as error:
                raise type(error)(f"layer {layer.digest}: {error}") from error
            kept = {key: value for key, value in layer.annotations.items() if key not in LAYER_FORMAT_ANNOTATIONS}
            descriptor = msgspec.structs.replace(built.descriptor, annotations={**kept, **built.descriptor.annotations})
            self._put(store, descriptor, spool)
        return LayerReport(layer.digest, layer.size, descriptor, reused=False), built.diff_id

    def _build(self, source: Any, spool: IO[bytes], what: str, build: BuildOptions) -> BuiltLayer:
        try:
            return self._hooks.build_layer(self._options.format, source, spool, build)
        except OSError as error:
            raise BuildError(f"{what}: the layer cannot be written to {tempfile.gettempdir()}: {error.strerror}; "
                             "set TMPDIR to a place with more room") from error  # fmt: skip

    @staticmethod
    def _put(store: ImageStore, descriptor: Descriptor, spool: IO[bytes]) -> None:
        if not store.has_blob(descriptor.digest, descriptor.size):
            spool.seek(0)
            store.put_blob(descriptor, spool)

    # --- the image ---------------------------------------------------------------------------------

    def _write_image(
        self, store: ImageStore, config: dict[str, Any], layers: list[LayerReport], annotations: dict[str, str]
    ) -> ConversionReport:
        config_bytes = msgspec.json.encode(config)
        config_descriptor = Descriptor(MediaType.OCI_CONFIG, sha256_digest(config_bytes), len(config_bytes))
        if not store.has_blob(config_descriptor.digest, config_descriptor.size):
            store.put_blob(config_descriptor, io.BytesIO(config_bytes))
        manifest = Manifest(
            config=config_descriptor,
            layers=[layer.result for layer in layers],
            schema_version=2,
            media_type=MediaType.OCI_MANIFEST,
            annotations=annotations,
        )
        data = msgspec.json.encode(manifest)
        descriptor = store.put_manifest(self._destination, MediaType.OCI_MANIFEST, data)
        return ConversionReport(descriptor, tuple(layers))


class _Counting:
    """Tells how much of an archive was read."""

    def __init__(self, archive: io.RawIOBase, advance: Callable[[int], None]) -> None:
        self._archive = archive
        self._advance = advance
        self.size = 0

    def read(self, size: int) -> bytes:
        """See `io.RawIOBase.read`."""
        data = self._archive.read(size) or b""
        self.size += len(data)
        self._advance(len(data))
        return data
