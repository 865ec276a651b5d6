"""Pull lazily: make an image known to containerd, and have its layers mounted instead of unpacked."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import accumulate

import msgspec

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.cache import Cache
from lazylayer.api.labels import LAYER_SIZE
from lazylayer.api.oci import Descriptor, Digest, Reference, ResolvedImage
from lazylayer.errors import FormatError, VerificationError
from lazylayer.fetching import Blob, Opening, RangeStore
from lazylayer.layers import annotate_layers, resolve_image
from lazylayer.program import Program
from lazylayer_snapshotter_containerd.api.types import Descriptor as ApiDescriptor
from lazylayer_snapshotter_containerd.api.types import Mount
from lazylayer_snapshotter_containerd.client import Containerd, ContainerdError
from lazylayer_snapshotter_containerd.identity import LayerIdentity, chain_id
from lazylayer_snapshotter_containerd.labels import annotation_labels, layer_source_labels
from lazylayer_snapshotter_containerd.remote import REMOTE_LABEL
from lazylayer_snapshotter_containerd.snapshotter import FALLBACK_LABEL, TARGET_LABEL

__all__ = ["PulledImage", "PulledLayer", "as_text", "chain_ids", "pull_image"]

_GC = "containerd.io/gc.ref"
"""Labels with this prefix tell containerd's garbage collector what a blob needs."""

_PIECE = 1024 * 1024


class PulledLayer(msgspec.Struct, frozen=True):
    """The outcome for one layer. `size` in bytes, compressed; `reason` explains why it is not lazy."""

    digest: Digest
    size: int
    lazy: bool
    reason: str = ""


class PulledImage(msgspec.Struct, frozen=True):
    """The outcome of a pull; layers lowest first."""

    name: str
    digest: Digest
    layers: list[PulledLayer]


def pull_image(
    program: Program, containerd: Containerd, reference: Reference, snapshotter: str, progress: Callable[[str], None]
) -> PulledImage:
    """Pull an image into a namespace of containerd.

    Manifest and config go into the content store, each layer becomes a snapshot of `snapshotter`, and
    the image gets its name last, when everything is there. A lease keeps containerd from collecting
    anything half-way. `progress` gets a line for each step.

    Raises LazylayerError; then containerd collects what was made.
    """
    resolved = _with_indexes(program, resolve_image(program.hooks, program.settings, reference))
    diff_ids, layers = resolved.config.rootfs.diff_ids, resolved.manifest.layers
    if len(diff_ids) != len(layers):
        raise FormatError(f"{reference}: the config names {len(diff_ids)} layers and the manifest {len(layers)}")
    progress(f"{resolved.digest[:19]}  manifest of {reference}")
    containerd.ensure_namespace()
    with containerd.lease():
        pull = _Pull(program, containerd, resolved, snapshotter, progress)
        pull.write_config()
        pulled = pull.prepare_layers()
        pull.write_manifest()
        target = ApiDescriptor(resolved.media_type, resolved.digest, len(resolved.manifest_bytes))
        containerd.set_image(str(reference), target)
    return PulledImage(str(reference), resolved.digest, pulled)


def _with_indexes(program: Program, image: ResolvedImage) -> ResolvedImage:
    """Return the image; the labels of its layers tell what stands beside it, too. The bytes of its manifest stay."""
    layers = image.manifest.layers
    if layers:
        blob = Blob(partial(program.hooks.resolve_blob, image.reference, layers[0]), layers[0].digest, layers[0].size)
        opening = Opening(blob, RangeStore(_NoCache()))
        layers = annotate_layers(program.hooks, image.reference, layers, image.manifest_bytes, opening)
    return msgspec.structs.replace(image, manifest=msgspec.structs.replace(image.manifest, layers=layers))


def chain_ids(diff_ids: list[Digest]) -> list[str]:
    """Return the name of each layer together with all below it (OCI image specification, "Layer ChainID")."""
    return list(accumulate(diff_ids, lambda below, diff_id: chain_id([below, diff_id])))


def as_text(image: PulledImage) -> str:
    """Return one line that says for each layer that it is lazy, or why it is not."""
    lazy = sum(layer.lazy for layer in image.layers)
    others = [
        f"{number} {layer.digest[7:19]}: {layer.reason}" for number, layer in enumerate(image.layers) if not layer.lazy
    ]
    line = f"{image.name}: {lazy} of {len(image.layers)} layers are lazy"
    return "; ".join([line, *others])


class _NoCache(Cache):
    def get(self, key: str) -> bytes | None:
        del key
        return None

    def put(self, key: str, data: bytes) -> None:
        del key, data


class _Pull:
    """One pull, under a lease."""

    def __init__(
        self,
        program: Program,
        containerd: Containerd,
        resolved: ResolvedImage,
        snapshotter: str,
        progress: Callable[[str], None],
    ) -> None:
        self._program = program
        self._containerd = containerd
        self._image = resolved
        self._snapshotter = snapshotter
        self._progress = progress
        self._chains = chain_ids(resolved.config.rootfs.diff_ids)

    def write_config(self) -> None:
        """Store the config; its label keeps the topmost snapshot, which keeps those below it."""
        config = self._image.manifest.config
        labels = self._source_labels()
        if self._chains:
            labels[f"{_GC}.snapshot.{self._snapshotter}"] = self._chains[-1]
        descriptor = ApiDescriptor(config.media_type, config.digest, len(self._image.config_bytes))
        self._containerd.write_content(descriptor, [self._image.config_bytes], labels)

    def write_manifest(self) -> None:
        """Store the manifest; its labels keep the config, and layers that had to be fetched."""
        manifest = self._image.manifest
        labels = {**self._source_labels(), f"{_GC}.content.config": manifest.config.digest}
        labels |= {f"{_GC}.content.l.{number}": layer.digest for number, layer in enumerate(manifest.layers)}
        data = self._image.manifest_bytes
        descriptor = ApiDescriptor(self._image.media_type, self._image.digest, len(data))
        self._containerd.write_content(descriptor, [data], labels)

    def prepare_layers(self) -> list[PulledLayer]:
        """Make a snapshot of every layer, lowest first."""
        pulled = []
        for number, layer in enumerate(self._image.manifest.layers):
            pulled.append(self._prepare_layer(number, layer))
            what = "lazy" if pulled[-1].lazy else pulled[-1].reason
            self._progress(f"{layer.digest[:19]}  {layer.size / 1e6:8.1f} MB  {what}")
        return pulled

    def _prepare_layer(self, number: int, layer: Descriptor) -> PulledLayer:
        chain, parent = self._chains[number], self._chains[number - 1] if number else ""
        key = f"lazylayer-pull-{secrets.token_hex(8)} {chain}"
        wanted = self._layer_labels(number, layer)
        try:
            mounts = self._containerd.prepare(self._snapshotter, key, parent, wanted)
        except ContainerdError as error:
            if error.status != "ALREADY_EXISTS":
                raise
            labels = self._containerd.snapshot_labels(self._snapshotter, chain) or {}
            lazy = REMOTE_LABEL in labels
            if lazy:
                self._compare(labels, wanted)
            return PulledLayer(layer.digest, layer.size, lazy, "" if lazy else "it is unpacked already")
        labels = self._containerd.snapshot_labels(self._snapshotter, key) or {}
        reason = labels.get(FALLBACK_LABEL, f"the snapshotter {self._snapshotter} did not mount it")
        try:
            self._unpack(number, layer, key, mounts)
        except BaseException:
            self._containerd.remove_snapshot(self._snapshotter, key)
            raise
        return PulledLayer(layer.digest, layer.size, False, reason)

    def _compare(self, mounted: Mapping[str, str], wanted: Mapping[str, str]) -> None:
        """Raise VerificationError unless the layer that the namespace has under this chain ID is the one wanted.

        Within a namespace containerd looks at nothing but the chain ID, which an image's author claims.
        """
        formats = self._program.hooks.formats()
        there, identity = LayerIdentity.of(mounted, formats), LayerIdentity.of(wanted, formats)
        if there is None or there != identity:
            raise VerificationError(
                f"layer {identity.digest if identity else ''}: the namespace has another layer under its chain ID, "
                f"{there.digest if there else 'of unknown origin'}; remove the image that this one belongs to, "
                "and pull again"
            )

    def _unpack(self, number: int, layer: Descriptor, key: str, mounts: list[Mount]) -> None:
        self._progress(f"{layer.digest[:19]}  {layer.size / 1e6:8.1f} MB  fetching and unpacking it")
        descriptor = ApiDescriptor(layer.media_type, layer.digest, layer.size)
        self._containerd.write_content(descriptor, self._fetch(layer), self._source_labels())
        unpacked = self._containerd.apply(descriptor, mounts)
        promised = self._image.config.rootfs.diff_ids[number]
        if unpacked != promised:
            raise VerificationError(f"layer {layer.digest}: unpacked it is {unpacked}; the config says {promised}")
        chain = self._chains[number]
        self._containerd.commit(self._snapshotter, key, chain, {TARGET_LABEL: chain})

    def _fetch(self, layer: Descriptor) -> Iterator[bytes]:
        source = self._program.hooks.resolve_blob(self._image.reference, layer)
        try:
            pieces = source.fetch([ByteRange(0, layer.size)]) if layer.size else iter(())
            for _, data in pieces:
                for start in range(0, len(data), _PIECE):
                    yield data[start : start + _PIECE]
        finally:
            source.close()

    def _layer_labels(self, number: int, layer: Descriptor) -> dict[str, str]:
        layers = [each.digest for each in self._image.manifest.layers[number:]]
        return {
            **annotation_labels(layer.annotations, self._program.hooks.formats().annotations),
            **layer_source_labels(self._image.reference, layer.digest, layers),
            LAYER_SIZE: str(layer.size),
            TARGET_LABEL: self._chains[number],
        }

    def _source_labels(self) -> dict[str, str]:
        """Return the labels that tell containerd where to fetch a blob again."""
        reference = self._image.reference
        return {f"containerd.io/distribution.source.{reference.host}": reference.repository} if reference.host else {}
