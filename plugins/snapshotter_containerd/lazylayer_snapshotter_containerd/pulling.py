"""Pull lazily: make an image known to containerd, and have its layers mounted instead of unpacked.

The daemon pulls. It opens and mounts all layers at the same time, and asks containerd for them, lowest first,
meanwhile: each of containerd's Prepares finds its layer mounted, or about to be (`ahead`). Manifest and config are
written at the same time. Layers that cannot be mounted are fetched concurrently (`fetching`), and unpacked in order.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import accumulate
from typing import NamedTuple, Protocol

import msgspec

from lazylayer.api.labels import LAYER_SIZE
from lazylayer.api.oci import Descriptor, Digest, ResolvedImage
from lazylayer.errors import FormatError, VerificationError
from lazylayer.layers import LayerStore
from lazylayer.program import Hooks
from lazylayer_snapshotter_containerd.api.types import Descriptor as ApiDescriptor
from lazylayer_snapshotter_containerd.api.types import Mount
from lazylayer_snapshotter_containerd.background import run_all, run_in_background
from lazylayer_snapshotter_containerd.client import Containerd, ContainerdError
from lazylayer_snapshotter_containerd.fetching import BlobFetches
from lazylayer_snapshotter_containerd.identity import LayerIdentity, chain_id
from lazylayer_snapshotter_containerd.labels import annotation_labels, layer_source_labels
from lazylayer_snapshotter_containerd.mountingahead import ImageAhead, WantedSnapshot
from lazylayer_snapshotter_containerd.remote import REMOTE_LABEL
from lazylayer_snapshotter_containerd.snapshotter import FALLBACK_LABEL, TARGET_LABEL, Snapshotter

__all__ = ["Daemon", "Progress", "PulledImage", "PulledLayer", "chain_ids", "pull_image"]

_GC = "containerd.io/gc.ref"
"""Labels with this prefix tell containerd's garbage collector what a blob needs."""


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


class Daemon(NamedTuple):
    """The parts of the daemon that a pull uses. `address` is the socket of its snapshotter."""

    hooks: Hooks
    layers: LayerStore
    snapshotter: Snapshotter
    address: str


class Progress(Protocol):
    """The client that waits for a pull; `lazylayer.cli.Conversation` is one."""

    @property
    def cancelled(self) -> bool:
        """True once the client has gone."""

    def progress(self, line: str) -> None:
        """Send a line to the client."""


def pull_image(
    daemon: Daemon, containerd: Containerd, resolved: ResolvedImage, scope: str, client: Progress
) -> PulledImage:
    """Pull an image into a namespace of containerd.

    Manifest and config go into the content store, each layer becomes a snapshot of the snapshotter that containerd
    calls `scope`, and the image gets its name last, when everything is there. A lease keeps containerd from
    collecting anything half-way. The client gets a line for each step.

    Raises LazylayerError; then containerd collects what was made.
    """
    resolved = _with_indexes(daemon.layers, resolved)
    reference = resolved.reference
    diff_ids, layers = resolved.config.rootfs.diff_ids, resolved.manifest.layers
    if len(diff_ids) != len(layers):
        raise FormatError(f"{reference}: the config names {len(diff_ids)} layers and the manifest {len(layers)}")
    client.progress(f"{resolved.digest[:19]}  manifest of {reference}")
    pull = _Pull(daemon, containerd, resolved, scope, client)
    pulled = pull.find() or pull.make()
    return PulledImage(str(reference), resolved.digest, pulled)


def _with_indexes(store: LayerStore, image: ResolvedImage) -> ResolvedImage:
    """Return the image; the labels of its layers tell what stands beside it, too. The bytes of its manifest stay."""
    layers = store.annotate(image.reference, image.manifest.layers, image.manifest_bytes)
    return msgspec.structs.replace(image, manifest=msgspec.structs.replace(image.manifest, layers=layers))


def chain_ids(diff_ids: Sequence[Digest]) -> list[str]:
    """Return the name of each layer together with all below it (OCI image specification, "Layer ChainID")."""
    return list(accumulate(diff_ids, lambda below, diff_id: chain_id([below, diff_id])))


class _Pull:
    """One pull."""

    def __init__(
        self, daemon: Daemon, containerd: Containerd, resolved: ResolvedImage, scope: str, client: Progress
    ) -> None:
        self._daemon = daemon
        self._containerd = containerd
        self._image = resolved
        self._scope = scope
        self._client = client
        self._chains = chain_ids(resolved.config.rootfs.diff_ids)
        self._labels = [self._layer_labels(number) for number in range(len(self._chains))]
        self._fetches = BlobFetches(daemon.hooks, resolved.reference, lambda: client.cancelled)

    # --- an image that is there --------------------------------------------------------------------

    def find(self) -> list[PulledLayer] | None:
        """Return the layers of the image if the namespace has all of it under its name, else None.

        Raises VerificationError if it has other layers under the chain IDs of these.
        """
        if self._containerd.image_target(str(self._image.reference)) != self._image.digest:
            return None
        blobs = [self._image.digest, self._image.manifest.config.digest]
        calls = [partial(self._containerd.has_content, digest) for digest in blobs]
        if not all(each.result() for each in run_all(calls, "lazylayer-pull")):
            return None
        there = [labels for labels in self._snapshots() if labels is not None]
        if len(there) < len(self._chains):
            return None
        return [self._there(number, labels) for number, labels in enumerate(there)]

    def _snapshots(self) -> list[dict[str, str] | None]:
        """Return the labels of the snapshots that the namespace has of these layers, None for those that it lacks."""
        calls = [partial(self._containerd.snapshot_labels, self._scope, chain) for chain in self._chains]
        return [each.result() for each in run_all(calls, "lazylayer-pull")]

    def _there(self, number: int, labels: Mapping[str, str]) -> PulledLayer:
        """Return the outcome for a layer whose snapshot is there."""
        layer = self._image.manifest.layers[number]
        lazy = REMOTE_LABEL in labels
        if lazy:
            self._compare(labels, self._labels[number])
        return self._tell(PulledLayer(layer.digest, layer.size, lazy, "" if lazy else "it is unpacked already"))

    # --- an image that is not ----------------------------------------------------------------------

    def make(self) -> list[PulledLayer]:
        """Make everything that is missing, and name the image."""
        containerd = self._containerd
        address = containerd.snapshotter_address(self._scope)
        if address is None:
            raise ContainerdError(
                f"containerd has no snapshotter {self._scope}; add [proxy_plugins.{self._scope}] to its "
                "configuration and restart it, or choose another --snapshotter",
                "NOT_FOUND",
            )
        ahead = ImageAhead(self._daemon.layers, self._daemon.snapshotter, self._image, self._scope)
        try:
            if address == self._daemon.address:
                ahead.begin(self._wanted(), self._fetch)
            containerd.ensure_namespace()
            with containerd.lease():
                writing = run_in_background(self._write_blobs, "lazylayer-pull")
                pulled = [self._prepare_layer(number, ahead) for number in range(len(self._chains))]
                writing.result()
                target = ApiDescriptor(self._image.media_type, self._image.digest, len(self._image.manifest_bytes))
                containerd.set_image(str(self._image.reference), target)
        finally:
            self._fetches.close()
            ahead.close()
        return pulled

    def _wanted(self) -> list[WantedSnapshot]:
        """Return the layers that are to be opened: all but those that are unpacked."""
        layers = zip(self._image.manifest.layers, self._chains, self._labels, self._snapshots(), strict=True)
        return [
            WantedSnapshot(layer, chain, labels, there is not None)
            for layer, chain, labels, there in layers
            if there is None or REMOTE_LABEL in there
        ]

    def _write_blobs(self) -> None:
        """Store config and manifest. Their labels keep what they need from being collected.

        The config's keeps the topmost snapshot, which keeps those below it; the manifest's keep the config, and
        layers that had to be fetched.
        """
        manifest, data = self._image.manifest, self._image.manifest_bytes
        labels = self._source_labels()
        if self._chains:
            labels[f"{_GC}.snapshot.{self._scope}"] = self._chains[-1]
        config = ApiDescriptor(manifest.config.media_type, manifest.config.digest, len(self._image.config_bytes))
        self._containerd.write_content(config, [self._image.config_bytes], labels)
        labels = {**self._source_labels(), f"{_GC}.content.config": manifest.config.digest}
        labels |= {f"{_GC}.content.l.{number}": layer.digest for number, layer in enumerate(manifest.layers)}
        descriptor = ApiDescriptor(self._image.media_type, self._image.digest, len(data))
        self._containerd.write_content(descriptor, [data], labels)

    def _prepare_layer(self, number: int, ahead: ImageAhead) -> PulledLayer:
        layer = self._image.manifest.layers[number]
        chain, parent = self._chains[number], self._chains[number - 1] if number else ""
        key = f"lazylayer-pull-{secrets.token_hex(8)} {chain}"
        try:
            mounts = self._containerd.prepare(self._scope, key, parent, self._labels[number])
        except ContainerdError as error:
            if error.status != "ALREADY_EXISTS":
                raise
            if ahead.is_committed(chain):  # by the Prepare of this pull: nothing else can be there
                return self._tell(PulledLayer(layer.digest, layer.size, True))
            return self._there(number, self._containerd.snapshot_labels(self._scope, chain) or {})
        labels = self._containerd.snapshot_labels(self._scope, key) or {}
        reason = labels.get(FALLBACK_LABEL, f"the snapshotter {self._scope} did not mount it")
        try:
            self._unpack(number, key, mounts)
        except BaseException:
            self._containerd.remove_snapshot(self._scope, key)
            raise
        return self._tell(PulledLayer(layer.digest, layer.size, False, reason))

    def _compare(self, mounted: Mapping[str, str], wanted: Mapping[str, str]) -> None:
        """Raise VerificationError unless the layer that the namespace has under this chain ID is the one wanted.

        Within a namespace containerd looks at nothing but the chain ID, which an image's author claims.
        """
        formats = self._daemon.hooks.formats()
        there, identity = LayerIdentity.of(mounted, formats), LayerIdentity.of(wanted, formats)
        if there is None or there != identity:
            raise VerificationError(
                f"layer {identity.digest if identity else ''}: the namespace has another layer under its chain ID, "
                f"{there.digest if there else 'of unknown origin'}; remove the image that this one belongs to, "
                "and pull again"
            )

    def _fetch(self, layer: Descriptor) -> Future[None]:
        """Fetch a layer into the content store, in the background; once, however often this is called."""
        descriptor = ApiDescriptor(layer.media_type, layer.digest, layer.size)
        labels = self._source_labels()
        return self._fetches.begin(layer, lambda pieces: self._containerd.write_content(descriptor, pieces, labels))

    def _unpack(self, number: int, key: str, mounts: list[Mount]) -> None:
        layer = self._image.manifest.layers[number]
        self._client.progress(f"{layer.digest[:19]}  {layer.size / 1e6:8.1f} MB  fetching and unpacking it")
        self._fetches.wait(self._fetch(layer))
        unpacked = self._containerd.apply(ApiDescriptor(layer.media_type, layer.digest, layer.size), mounts)
        promised = self._image.config.rootfs.diff_ids[number]
        if unpacked != promised:
            raise VerificationError(f"layer {layer.digest}: unpacked it is {unpacked}; the config says {promised}")
        chain = self._chains[number]
        self._containerd.commit(self._scope, key, chain, {TARGET_LABEL: chain})

    def _layer_labels(self, number: int) -> dict[str, str]:
        layers = self._image.manifest.layers[number:]
        return {
            **annotation_labels(layers[0].annotations, self._daemon.hooks.formats().annotations),
            **layer_source_labels(self._image.reference, layers[0].digest, [each.digest for each in layers]),
            LAYER_SIZE: str(layers[0].size),
            TARGET_LABEL: self._chains[number],
        }

    def _source_labels(self) -> dict[str, str]:
        """Return the labels that tell containerd where to fetch a blob again."""
        reference = self._image.reference
        return {f"containerd.io/distribution.source.{reference.host}": reference.repository} if reference.host else {}

    def _tell(self, pulled: PulledLayer) -> PulledLayer:
        what = "lazy" if pulled.lazy else pulled.reason
        self._client.progress(f"{pulled.digest[:19]}  {pulled.size / 1e6:8.1f} MB  {what}")
        return pulled
