"""A plugin that keeps images, caches and mounts in memory, and a program with no other plugin."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from lazylayer import hookimpl
from lazylayer.api.cache import Cache
from lazylayer.api.credentials import Keychain
from lazylayer.api.events import StateEvent
from lazylayer.api.labels import STARGZ_DIGEST, STARGZ_LAYERS, STARGZ_REFERENCE, TOC_DIGEST
from lazylayer.api.layers import LayerContents, PrefetchPlan
from lazylayer.api.mounting import Missing, MountableTree, MountedTree, Works
from lazylayer.api.oci import (
    Descriptor,
    Digest,
    ImageConfig,
    Manifest,
    MediaType,
    Platform,
    Reference,
    ResolvedImage,
    sha256_digest,
)
from lazylayer.api.opened import OpenedBlob, OpenedImage, OpenedLayer
from lazylayer.api.settings import CacheSettings, MountSettings, Settings
from lazylayer.api.sources import BlobSource
from lazylayer.errors import MountError, NotFoundError
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager
from lazylayer_testing.synthetic.layers import DictCache, MemorySource, SyntheticLayer

# ruff: noqa: ARG002 - hooks are given what a plugin of this size does not need

__all__ = ["REFERENCE", "MemoryPlugin", "RecordedMount", "SyntheticProgram"]

REFERENCE = Reference("image", "registry.test", "1")
"""The image that `MemoryPlugin` resolves."""


class RecordedMount(MountedTree):
    """A mount without a kernel: it records its tree and whether it was unmounted. `busy` refuses that."""

    def __init__(self, tree: MountableTree, mountpoint: str) -> None:
        self.frontend = "recorded"
        self.tree = tree
        self.mountpoint = mountpoint
        self.busy = False
        self.gone = threading.Event()

    def unmount(self, *, force: bool = False) -> None:
        """Mark the mount as gone. Raises MountError if it is busy, unless forced."""
        if self.busy and not force:
            raise MountError(f"{self.mountpoint} is in use")
        self.gone.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the mount is gone, and return whether it is."""
        return self.gone.wait(timeout)


class MemoryPlugin:
    """One image, `REFERENCE`, of the given layers. `asked` records the hooks called, `events` the reports.

    The callables `before_open`, `verify`, `before_mount`, `plan` and `prefetch_image` may be replaced.
    """

    def __init__(self, layers: list[SyntheticLayer]) -> None:
        self.layers = {layer.digest: layer for layer in layers}
        self.sources = {layer.digest: MemorySource(layer.data) for layer in layers}
        self.caches: dict[str, DictCache] = {}
        self.mounts: dict[str, RecordedMount] = {}
        self.events: list[StateEvent] = []
        self.asked: list[str] = []
        self.references = {REFERENCE}
        """The names of the image."""
        self.before_resolve: Callable[[Reference], None] = lambda _: None
        self.before_open: Callable[[Digest], None] = lambda _: None
        self.verify: Callable[[bytes], Exception | None] = lambda _: None
        self.before_mount: Callable[[], None] = lambda: None
        self.plan: Callable[[OpenedLayer], PrefetchPlan | None] = lambda _: None
        self.prefetch_image: Callable[[OpenedImage], None] = lambda _: None
        self.config: dict[str, Any] = {}
        self.tagged = list(self.layers)
        """Digests of the layers of the image that the tag names now."""

    def descriptors(self) -> list[Descriptor]:
        """Return the descriptors of the image's layers, lowest first."""
        return [
            Descriptor(
                MediaType.OCI_LAYER_GZIP, digest, len(self.layers[digest].data), {TOC_DIGEST: sha256_digest(b"toc")}
            )
            for digest in self.tagged
        ]

    def labels(self, number: int) -> dict[str, str]:
        """Return the labels that containerd gives to the layer of this number."""
        digests = list(self.layers)
        return {
            STARGZ_REFERENCE: str(REFERENCE),
            STARGZ_DIGEST: digests[number],
            STARGZ_LAYERS: ",".join(digests[number:]),
            TOC_DIGEST: sha256_digest(b"toc"),
        }

    @hookimpl
    def lazylayer_resolve_image(
        self, reference: Reference, platform: Platform, keychain: Keychain
    ) -> ResolvedImage | None:
        """Resolve `references`, and no other image."""
        self.asked.append("resolve_image")
        self.before_resolve(reference)
        if reference not in self.references:
            raise NotFoundError(f"{reference} does not exist")
        config = ImageConfig(config=self.config)
        config_bytes = msgspec.json.encode(config)
        config_descriptor = Descriptor(MediaType.OCI_CONFIG, sha256_digest(config_bytes), len(config_bytes))
        manifest = Manifest(config_descriptor, self.descriptors(), 2, MediaType.OCI_MANIFEST)
        data = msgspec.json.encode(manifest)
        return ResolvedImage(
            reference, sha256_digest(data), MediaType.OCI_MANIFEST, manifest, config, data, config_bytes
        )

    @hookimpl
    def lazylayer_resolve_blob(self, reference: Reference, descriptor: Descriptor) -> BlobSource | None:
        """Return the source of a layer."""
        self.asked.append(f"resolve_blob {descriptor.digest}")
        return self.sources[descriptor.digest]

    @hookimpl
    def lazylayer_open_cache(self, purpose: str) -> Cache:
        """Open the cache in `caches` for this purpose."""
        return self.caches.setdefault(purpose, DictCache())

    @hookimpl
    def lazylayer_open_layer(self, blob: OpenedBlob, descriptor: Descriptor) -> LayerContents | None:
        """Return the contents of a layer, after `before_open` and `verify`."""
        self.asked.append(f"open_layer {descriptor.digest}")
        self.before_open(descriptor.digest)
        error = self.verify(blob.read(blob.size - 8, 8))
        if error is not None:
            raise error
        return self.layers[descriptor.digest].contents

    @hookimpl
    def lazylayer_plan_prefetch(self, layer: OpenedLayer, labels: Mapping[str, str]) -> PrefetchPlan | None:
        """Plan as `plan` says."""
        self.asked.append(f"plan_prefetch {layer.digest}")
        return self.plan(layer)

    @hookimpl
    def lazylayer_prefetch_image(self, image: OpenedImage, labels: Mapping[str, str]) -> None:
        """Do as `prefetch_image` says."""
        self.asked.append("prefetch_image")
        self.prefetch_image(image)

    @hookimpl
    def lazylayer_probe_frontend(self) -> Works | Missing:
        """Say that the frontend works."""
        return Works()

    @hookimpl
    def lazylayer_mount_tree(self, tree: MountableTree, mountpoint: str) -> MountedTree:
        """Record a mount."""
        self.before_mount()
        self.mounts[mountpoint] = RecordedMount(tree, mountpoint)
        return self.mounts[mountpoint]

    @hookimpl
    def lazylayer_report_state(self, event: StateEvent) -> None:
        """Record an event."""
        self.events.append(event)


class SyntheticProgram:
    """The part of a `Program` that `Filesystem` uses, with this plugin and `others`, which are asked before it."""

    def __init__(self, plugin: MemoryPlugin, settings: Settings | None = None, others: Sequence[object] = ()) -> None:
        manager = make_manager()
        manager.register(plugin, "memory")
        for each in others:
            manager.register(each, type(each).__name__)
        self.hooks = Hooks(manager)
        settings = settings or Settings()
        self.settings = msgspec.structs.replace(
            settings,
            cache=CacheSettings(chunks="memory", ranges="memory", scope=settings.cache.scope),
            mount=MountSettings(frontend="memory"),
        )
