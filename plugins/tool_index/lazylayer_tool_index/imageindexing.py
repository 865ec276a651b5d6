"""Index an image for SOCI and lazylayer, so that its layers are read lazily as they are.

Each layer is read once and never written. What is written, in this order: zTOCs, a SOCI index for each platform, the
manifests that name them, and last the OCI index under the tag. So an image is either as it was or complete.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import IO, TYPE_CHECKING, Any, cast

import msgspec

from lazylayer.api.decoding import decode_json
from lazylayer.api.oci import (
    Descriptor,
    Digest,
    MediaType,
    Platform,
    Reference,
    ResolvedImage,
    sha256_digest,
)
from lazylayer.errors import BuildError, FormatError, NotFoundError, ResolveError
from lazylayer_building import ImageStore
from lazylayer_building.stores import open_store
from lazylayer_manifests import images_of
from lazylayer_tarlayers.wholeblob import BlobStream
from lazylayer_tool_index.documents import (
    CONFIG,
    CONFIG_DESCRIPTOR,
    INDEX_DIGEST,
    LAYER_DIGEST,
    SPAN_SIZE,
    bind_manifest,
    describe_soci_index,
    describe_ztoc,
    make_soci_index,
    update_index,
)
from lazylayer_tool_index.finished import FinishedZtocs
from lazylayer_tool_index.layerwork import LayerWork, WantedLayer

if TYPE_CHECKING:
    from lazylayer.program import Hooks

__all__ = ["ImageIndexer", "IndexOptions", "IndexReport", "LayerReport"]


class IndexOptions(msgspec.Struct, frozen=True):
    """Options of indexing; sizes in bytes. `force` indexes layers again that have an index of that span size."""

    span_size: int = 4 * 1024 * 1024
    min_layer_size: int = 10 * 1024 * 1024
    jobs: int = 0
    force: bool = False


class LayerReport(msgspec.Struct, frozen=True):
    """The outcome for one layer: its zTOC, made now or `kept`; or the reason why it is fetched whole."""

    layer: Descriptor
    ztoc: Descriptor | None = None
    kept: bool = False
    reason: str = ""


class IndexReport(msgspec.Struct, frozen=True):
    """The outcome for an image: the descriptor of its OCI index, and its layers, each once."""

    index: Descriptor
    layers: tuple[LayerReport, ...]


class ImageIndexer:
    """Indexes images from `source` for `destination`. Used by one thread.

    `advance` is called, from any thread, with the number of bytes of layers that were read.
    """

    def __init__(
        self,
        hooks: Hooks,
        finished: FinishedZtocs,
        options: IndexOptions,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._hooks = hooks
        self._finished = finished
        self._options = options
        self._advance = advance

    def index_image(self, first: ResolvedImage, destination: Reference, *, all_platforms: bool) -> IndexReport:
        """Index one image, or those of all platforms of its index, and write the OCI index of them.

        Raises ResolveError, LayerError or BuildError.
        """
        images = list(self._platforms(first)) if all_platforms else [first]
        with closing(open_store(self._hooks, destination)) as store:
            writer = _Writer(self._hooks, store, first.reference, destination)
            reports = self._index_layers(images, destination, writer)
            if not any(report.ztoc for report in reports.values()):
                reasons = "; ".join(dict.fromkeys(report.reason for report in reports.values()))
                raise BuildError(f"{first.reference}: no layer was indexed: {reasons or 'it has no layers'}")
            index = writer.write(first, images, reports)
        self._finished.remove()
        return IndexReport(index, tuple(reports.values()))

    def _platforms(self, first: ResolvedImage) -> Iterator[ResolvedImage]:
        """Yield the image of each platform."""
        if first.index is None:
            yield first
            return
        for entry in images_of(first.index):
            named = msgspec.structs.replace(first.reference, tag="", digest=entry.digest)
            yield self._hooks.resolve_image(named, entry.platform or Platform())

    # --- layers ------------------------------------------------------------------------------------

    def _index_layers(
        self, images: Sequence[ResolvedImage], destination: Reference, writer: _Writer
    ) -> dict[Digest, LayerReport]:
        """Return the outcome for each layer of the images, in their order, with its zTOC at the destination."""
        reports: dict[Digest, LayerReport] = {}
        wanted: dict[Digest, WantedLayer] = {}
        for image in images:
            diff_ids = image.config.rootfs.diff_ids
            if len(diff_ids) != len(image.manifest.layers):
                raise FormatError(
                    f"{image.reference}: {len(image.manifest.layers)} layers, but the config lists {len(diff_ids)}"
                )
            before = {} if self._options.force else self._indexed_before(image, destination)
            for layer, diff_id in zip(image.manifest.layers, diff_ids, strict=True):
                if layer.digest in reports and reports[layer.digest].ztoc:
                    continue
                known = before.get(layer.digest)
                if known is not None and writer.take(known, image.reference):
                    reports[layer.digest] = LayerReport(layer, known, kept=True)
                    wanted.pop(layer.digest, None)
                    self._advance(layer.size)
                    continue
                reason = self._reason_not_to(layer)
                reports[layer.digest] = LayerReport(layer, reason=reason)
                if not reason:
                    wanted[layer.digest] = WantedLayer(image.reference, layer, diff_id)
        work = LayerWork(self._hooks, self._finished, self._options.span_size, self._advance)
        jobs = self._options.jobs or os.cpu_count() or 1
        with closing(work.run(list(wanted.values()), jobs)) as outcomes:
            for layer, ztoc, reason in outcomes:
                described = describe_ztoc(ztoc, layer, self._options.span_size) if ztoc else None
                if described is not None:
                    writer.put(described, ztoc)
                reports[layer.digest] = LayerReport(layer, described, reason=reason)
        return reports

    def _reason_not_to(self, layer: Descriptor) -> str:
        if layer.size < self._options.min_layer_size:
            return f"smaller than {self._options.min_layer_size} bytes"
        if layer.media_type.endswith("zstd"):
            return "compressed with zstd, of which a zTOC can hold no checkpoints"
        return ""

    def _indexed_before(self, image: ResolvedImage, destination: Reference) -> dict[Digest, Descriptor]:
        """Return the zTOCs that an index of this image has already, by layer."""
        found: dict[Digest, Descriptor] = {}
        for each in (image, self._at_destination(image, destination)):
            digest = each.manifest.annotations.get(INDEX_DIGEST, "") if each is not None else ""
            if each is None or not digest:
                continue
            named = msgspec.structs.replace(each.reference, tag="", digest=digest)
            try:
                index = self._hooks.resolve_image(named, Platform())
            except (ResolveError, FormatError):
                continue  # the index is gone, or not one that we know: the layers are indexed again
            if index.manifest.config.media_type != CONFIG_DESCRIPTOR.media_type:
                continue
            for ztoc in index.manifest.layers:
                if ztoc.annotations.get(SPAN_SIZE) == str(self._options.span_size) and LAYER_DIGEST in ztoc.annotations:
                    found[Digest(ztoc.annotations[LAYER_DIGEST])] = ztoc
        return found

    def _at_destination(self, image: ResolvedImage, destination: Reference) -> ResolvedImage | None:
        """Return what the destination names now for the image's platform, if it is there."""
        try:
            return self._hooks.resolve_image(destination, _platform(image))
        except (ResolveError, FormatError):
            return None


class _Writer:
    """Writes to one destination. In the repository of the source, layers and other platforms stay as they are."""

    def __init__(self, hooks: Hooks, store: ImageStore, source: Reference, destination: Reference) -> None:
        self._hooks = hooks
        self._store = store
        self._destination = destination
        place = _place(source)
        self._in_place = place is not None and place == _place(destination)

    def put(self, descriptor: Descriptor, data: bytes) -> None:
        """Write a blob, unless it is there."""
        if not self._store.has_blob(descriptor.digest, descriptor.size):
            self._store.put_blob(descriptor, io.BytesIO(data))

    def take(self, descriptor: Descriptor, source: Reference) -> bool:
        """Copy a blob from the image `source`, unless it is there. Return False if it is nowhere."""
        if self._store.has_blob(descriptor.digest, descriptor.size):
            return True
        try:
            self._copy(descriptor, source)
        except (NotFoundError, ResolveError):
            return False
        return True

    def write(
        self, first: ResolvedImage, images: Sequence[ResolvedImage], reports: dict[Digest, LayerReport]
    ) -> Descriptor:
        """Write manifests and indexes, and the layers if the destination is another place."""
        self.put(CONFIG_DESCRIPTOR, CONFIG)
        before = self._index_before(first, images)
        bound: dict[str, dict[str, Any]] = {}
        soci_indexes = []
        for image in images:
            ztocs = [ztoc for layer in image.manifest.layers if (ztoc := reports[layer.digest].ztoc) is not None]
            soci_index = make_soci_index(_once(ztocs)) if ztocs else b""
            if soci_index:
                self._put_manifest(soci_index)
            entry = self._write_manifest(image, before, sha256_digest(soci_index) if soci_index else "")
            bound[image.digest] = entry
            if soci_index:
                manifest = Descriptor(MediaType.OCI_MANIFEST, entry["digest"], entry["size"])
                soci_indexes.append(describe_soci_index(soci_index, manifest, _platform(image)))
        for image in self._other_images(first, before, bound):
            bound[image.digest] = self._write_manifest(image, before, image.manifest.annotations.get(INDEX_DIGEST, ""))
        data = update_index(before, bound, soci_indexes)
        return self._store.put_manifest(self._destination, MediaType.OCI_INDEX, data)

    def _write_manifest(self, image: ResolvedImage, before: dict[str, Any], soci_index: str) -> dict[str, Any]:
        """Write an image's manifest, and what it needs, and return its entry in the OCI index."""
        if not self._in_place:
            for layer in image.manifest.layers:
                if not self._store.has_blob(layer.digest, layer.size):
                    self._copy(layer, image.reference)
            self.put(image.manifest.config, image.config_bytes)
        data = bind_manifest(image, soci_index)
        written = self._put_manifest(data)
        old: dict[str, Any] = next((each for each in before["manifests"] if each["digest"] == image.digest), {})
        annotations = {**(old.get("annotations") or {}), **(decode_json(data, dict[str, Any]).get("annotations") or {})}
        entry = {
            **old,
            "mediaType": MediaType.OCI_MANIFEST,
            "digest": written.digest,
            "size": written.size,
            "platform": old.get("platform") or msgspec.to_builtins(_platform(image)),
        }
        return {**entry, "annotations": annotations} if annotations else entry

    def _index_before(self, first: ResolvedImage, images: Sequence[ResolvedImage]) -> dict[str, Any]:
        """Return the OCI index to change: the source's, without what is not written to another place."""
        if first.index is None:
            entries = [{"digest": image.digest} for image in images]
            return {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": entries}
        index = decode_json(first.index_bytes, dict[str, Any])
        wanted = {image.digest for image in images}
        there = {each["digest"] for each in index["manifests"]}
        if not wanted <= there:
            raise FormatError(f"{first.reference}: an index in an index cannot be indexed; name the inner one")
        if not self._in_place:
            index["manifests"] = [each for each in index["manifests"] if each["digest"] in wanted]
        return index

    def _other_images(
        self, first: ResolvedImage, before: dict[str, Any], bound: dict[str, dict[str, Any]]
    ) -> Iterator[ResolvedImage]:
        """Yield the images that are not indexed and must become OCI's, which registries do not mix with Docker's."""
        for entry in before["manifests"]:
            if entry["digest"] not in bound and entry.get("mediaType") == MediaType.DOCKER_MANIFEST:
                named = msgspec.structs.replace(first.reference, tag="", digest=entry["digest"])
                yield self._hooks.resolve_image(named, Platform())

    def _put_manifest(self, data: bytes) -> Descriptor:
        named = msgspec.structs.replace(self._destination, tag="", digest=sha256_digest(data))
        return self._store.put_manifest(named, MediaType.OCI_MANIFEST, data)

    def _copy(self, descriptor: Descriptor, source: Reference) -> None:
        if self._store.take_blob(descriptor, source):
            return
        with (
            closing(self._hooks.resolve_blob(source, descriptor)) as blob,
            closing(BlobStream(blob, descriptor, lambda _: None)) as stream,
        ):
            self._store.put_blob(descriptor, cast("IO[bytes]", stream))


def _once(ztocs: Sequence[Descriptor]) -> list[Descriptor]:
    """Return each zTOC once, though its layer may occur twice."""
    return list({each.annotations[LAYER_DIGEST]: each for each in ztocs}.values())


def _place(reference: Reference) -> tuple[str, str, str] | None:
    """Return where an image's blobs lie, or None for a place that is written anew each time."""
    if reference.scheme == "oci":
        return "oci", "", os.path.realpath(reference.repository)
    return ("", reference.host, reference.repository) if not reference.scheme else None


def _platform(image: ResolvedImage) -> Platform:
    config = image.config
    return Platform(config.architecture, config.os, config.variant)
