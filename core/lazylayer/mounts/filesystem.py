"""Mount, check, unmount: what a snapshotter, or `lazylayer mount`, asks for.

A mount by labels shows one layer, as overlayfs wants a lower directory; a mount by reference shows a
layer or a whole image. Both borrow their layers from one `LayerStore`, and both are prefetched and
then completed in the background.

The lock is `Filesystem._lock`; no layer is opened, and nothing mounted, while it is held. Mounts of
different mountpoints run at the same time. `Filesystem._choosing` is held while frontends are probed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from loguru import logger

from lazylayer.api.events import EventKind, LayerState, MountState, StateEvent
from lazylayer.api.labels import (
    LAYER_SIZE,
    SKIP_VERIFY,
    LayerSource,
    label_annotations,
    label_number,
    layer_source,
)
from lazylayer.api.mounting import MountableTree, MountedTree, MountOptions
from lazylayer.api.oci import Descriptor, Reference
from lazylayer.errors import (
    AuthenticationError,
    LazylayerError,
    MountError,
    NotMountedError,
    ResolveError,
    UnavailableError,
    VerificationError,
)
from lazylayer.layers.chains import Neighbours
from lazylayer.layers.image import Image, open_image, resolve_image
from lazylayer.layers.layer import Layer
from lazylayer.layers.store import LayerStore
from lazylayer.mounts.frontends import choose_frontend
from lazylayer.program import Program

__all__ = ["Filesystem"]

REFRESHES = 3


class _Mount:
    __slots__ = ("layers", "mounted", "reference")

    def __init__(self, reference: Reference, layers: tuple[Layer, ...], mounted: MountedTree | None) -> None:
        self.reference = reference
        self.layers = layers
        self.mounted = mounted


class Filesystem:
    """All mounts of one program. Safe to use from any thread."""

    def __init__(self, program: Program) -> None:
        self._settings = program.settings
        self._hooks = program.hooks
        self._lock = threading.Lock()
        self._mounts: dict[str, _Mount] = {}
        self._frontend = ""
        self._choosing = threading.Lock()
        self.layers = LayerStore(self._settings, self._hooks)
        self._neighbours = Neighbours(self._settings, self._hooks, self.layers)

    # --- mounting ----------------------------------------------------------------------------------

    def mount(self, mountpoint: str, labels: Mapping[str, str], *, check: bool = True) -> None:
        """Mounts the layer that `labels` name at `mountpoint`, an existing directory.

        The other layers of the image that the labels list are opened at the same time, in the
        background. With `check`, a layer whose source does not answer now is refused, unless it
        answered a moment ago or all of the layer is here.

        Raises MountError for bad labels and mountpoints, and what resolving raises; nothing stays
        mounted then.
        """
        source = layer_source(labels)
        with self._claim(mountpoint, source.reference) as claim, self.layers.scheduler.foreground():
            # What is mounted again is in use already: it has read what it needs at its start.
            self._neighbours.open(source, labels, prefetch=check)
            layer = self._borrow(source, labels)
            claim.layers = (layer,)
            if check:
                self._check_source(layer)
            self.layers.start_fetching(layer, labels)
            claim.mounted = self._show(layer, mountpoint, claim.layers)
        self._tell("mounted", mountpoint, claim)

    def mount_image(self, mountpoint: str, reference: Reference, layer: int | None = None) -> None:
        """Mounts an image, all its layers merged, or only layer number `layer`, 0 the lowest.

        Raises MountError, and what resolving raises; nothing stays mounted then.
        """
        with self._claim(mountpoint, reference) as claim, self.layers.scheduler.foreground():
            image = self.open_image(reference, layer)
            claim.layers = image.layers
            for each in image.layers:
                self.layers.start_fetching(each, {})
            if layer is None:
                self._prefetch_image(image)
            tree: MountableTree = image.merged() if layer is None else image.layers[0]
            claim.mounted = self._show(tree, mountpoint, claim.layers)
        self._tell("mounted", mountpoint, claim)

    def open_image(self, reference: Reference, layer: int | None = None) -> Image:
        """Opens all layers of an image, or only layer number `layer`; `Image.close` gives them back."""
        resolved = resolve_image(self._hooks, self._settings, reference)
        descriptors = resolved.manifest.layers
        if layer is not None:
            if not 0 <= layer < len(descriptors):
                raise MountError(f"{reference} has layers 0 to {len(descriptors) - 1}; there is no layer {layer}")
            descriptors = [descriptors[layer]]
        return open_image(self.layers, resolved, self._settings, descriptors)

    # --- afterwards --------------------------------------------------------------------------------

    def check(self, mountpoint: str, labels: Mapping[str, str] | None = None, *, wait: bool = True) -> None:
        """Returns if the mount at `mountpoint` can be used now.

        With `wait`, waits for a prefetch that is under way, up to `prefetch.timeout`; being late only
        warns. A reader who comes before waits for what he reads, and for no more. Then the source of
        each layer that is not all here must answer; tokens and redirected addresses that it refuses are
        renewed. `labels` are not needed and ignored.

        Raises NotMountedError for a mountpoint that is not ours, MountError for one that is still being
        mounted, UnavailableError or AuthenticationError for a source that fails.
        """
        del labels
        self._forget_gone()
        mount = self._find(mountpoint)
        if mount.mounted is None:
            raise MountError(f"{mountpoint} is still being mounted")
        with self.layers.scheduler.foreground():
            for layer in mount.layers:
                if wait and not layer.wait_prefetched(self._settings.prefetch.timeout):
                    logger.warning("the prefetch of {digest} is still under way", digest=layer.digest)
                self._check_source(layer)

    def unmount(self, mountpoint: str, *, force: bool = False) -> None:
        """Unmounts and gives the layers back; what they fetched stays in the cache.

        Raises NotMountedError for a mountpoint that is not ours, and MountError for a mount that is
        in use, unless `force`; then readers get errors.
        """
        mountpoint = os.path.abspath(mountpoint)  # noqa: PTH100 - must not follow or touch the mount
        mount = self._find(mountpoint)
        if mount.mounted is None:
            raise MountError(f"{mountpoint} is still being mounted")
        mount.mounted.unmount(force=force)
        self._forget(mountpoint, mount)

    def wait(self, mountpoint: str, timeout: float | None = None) -> bool:
        """Waits until `mountpoint` is unmounted, by anybody; whether it is. `timeout` in seconds."""
        mounted = self._find(mountpoint).mounted
        return mounted is None or mounted.wait(timeout)

    def state(self, mountpoint: str) -> tuple[LayerState, ...]:
        """How much of each layer at `mountpoint` is here, lowest layer first."""
        return tuple(layer.state() for layer in self._find(mountpoint).layers)

    def mounts(self) -> tuple[MountState, ...]:
        """Every mount of now with its layers, in the order in which they were made."""
        self._forget_gone()
        with self._lock:
            mounts = [(path, mount) for path, mount in self._mounts.items() if mount.mounted is not None]
        return tuple(
            MountState(
                path,
                str(mount.reference),
                mount.mounted.frontend if mount.mounted is not None else "",
                tuple(layer.state() for layer in mount.layers),
            )
            for path, mount in mounts
        )

    def disk_usage(self, mountpoint: str) -> int:
        """Bytes of the cache that belong to the layers at `mountpoint`, as far as they were seen."""
        return sum(layer.held_bytes() for layer in self._find(mountpoint).layers)

    def mountpoints(self) -> dict[str, Reference]:
        """What is mounted now: each mountpoint with the image that it shows."""
        self._forget_gone()
        with self._lock:
            return {path: mount.reference for path, mount in self._mounts.items() if mount.mounted is not None}

    def frontend(self) -> str:
        """The frontend that mounts are made with, chosen the first time that it is asked."""
        with self._choosing:
            if not self._frontend:
                self._frontend = choose_frontend(self._hooks, self._settings.mount)
            return self._frontend

    def warm_up(self) -> None:
        """Does ahead what the first mount would wait for: chooses the frontend, has plugins get ready. Never raises."""
        try:
            frontend = self.frontend()
        except LazylayerError as error:
            frontend = ""
            logger.warning("{error}", error=error)
        self._hooks.warm_up(frontend)

    def close(self, *, leave: bool = False) -> None:
        """Unmounts everything, in use or not, and closes layers and caches.

        With `leave`, mounts that can outlive this process are left as they are, for the next one that
        mounts the same there: for a daemon that is restarted or upgraded.
        """
        for mountpoint in self.mountpoints():
            mounted = self._find(mountpoint).mounted
            if leave and mounted is not None and mounted.leave():
                continue
            try:
                self.unmount(mountpoint, force=True)
            except LazylayerError as error:
                logger.warning("while closing: {error}", error=error)
        self.layers.close()

    # --- parts -------------------------------------------------------------------------------------

    def _claim(self, mountpoint: str, reference: Reference) -> _Claim:
        self._forget_gone()
        if not Path(mountpoint).is_dir():
            raise MountError(f"{mountpoint} is not a directory")
        return _Claim(self, os.path.abspath(mountpoint), reference)  # noqa: PTH100 - symlinks stay as they are

    def _find(self, mountpoint: str) -> _Mount:
        with self._lock:
            mount = self._mounts.get(os.path.abspath(mountpoint))  # noqa: PTH100 - must not touch the mount
        if mount is None:
            raise NotMountedError(f"{mountpoint}: nothing is mounted there by this program")
        return mount

    def _forget(self, mountpoint: str, mount: _Mount) -> None:
        """Unregisters a mount that is gone, and gives its layers back; once, whoever noticed it."""
        with self._lock:
            if self._mounts.get(mountpoint) is not mount:
                return
            del self._mounts[mountpoint]
        self._tell("unmounted", mountpoint, mount)
        self._release(mount.layers)

    def _forget_gone(self) -> None:
        """Unregisters what somebody else has unmounted."""
        with self._lock:
            mounts = list(self._mounts.items())
        for mountpoint, mount in mounts:
            if mount.mounted is not None and mount.mounted.wait(0):
                self._forget(mountpoint, mount)

    def _borrow(self, source: LayerSource, labels: Mapping[str, str]) -> Layer:
        skip = SKIP_VERIFY in labels and self._settings.fetch.allow_skip_verify
        verify = self._settings.fetch.verify and not skip
        annotations = label_annotations(labels)
        descriptor = Descriptor("", source.digest, label_number(labels, LAYER_SIZE) or 0, annotations)
        timeout = self._settings.resolve.timeout
        layer = self.layers.borrow(source.reference, descriptor, verify=verify, timeout=timeout)
        label = self._hooks.formats().toc_digest_label(layer.contents.format)
        promised = annotations.get(label)
        if verify and promised != layer.contents.toc_digest:
            self.layers.release(layer)
            raise VerificationError(
                f"layer {source.digest}: the label {label} says {promised or 'nothing'}, "
                f"the layer's table of contents is {layer.contents.toc_digest}"
            )
        return layer

    def _prefetch_image(self, image: Image) -> None:
        """Lets policies prefetch the image, behind the caller's back."""
        if self._settings.prefetch.enabled:
            prefetch = threading.Thread(target=self._hooks.prefetch_image, args=(image, {}), name="lazylayer-image")
            prefetch.daemon = True
            prefetch.start()

    def _check_source(self, layer: Layer) -> None:
        interval = self._settings.resolve.check_interval
        if layer.complete or time.monotonic() - layer.blob.last_contact < interval:
            return
        for attempt in range(1, REFRESHES + 1):
            try:
                layer.blob.check()
                return
            except (UnavailableError, AuthenticationError) as error:
                if attempt == REFRESHES:
                    raise
                logger.debug("{digest}: check {n} failed: {error}", digest=layer.digest, n=attempt, error=error)
            except ResolveError:
                raise

    def _show(self, tree: MountableTree, mountpoint: str, layers: tuple[Layer, ...]) -> MountedTree:
        mount = self._settings.mount
        options = MountOptions(self.frontend(), mount.allow_other, mount.debug)
        mounted = self._hooks.mount_tree(tree, os.path.abspath(mountpoint), options)  # noqa: PTH100 - as in _claim
        if not mounted.needs_tree:
            for layer in layers:
                layer.need_nothing()
        return mounted

    def _release(self, layers: tuple[Layer, ...]) -> None:
        for layer in layers:
            self.layers.release(layer)

    def _tell(self, kind: EventKind, mountpoint: str, mount: _Mount) -> None:
        states = tuple(layer.state() for layer in mount.layers)
        self._hooks.report_state(StateEvent(kind, str(mount.reference), states, mountpoint))


class _Claim:
    """Reserves a mountpoint while it is being mounted; gives everything back if that fails."""

    def __init__(self, filesystem: Filesystem, mountpoint: str, reference: Reference) -> None:
        self._filesystem = filesystem
        self._mountpoint = mountpoint
        self._mount = _Mount(reference, (), None)

    def __enter__(self) -> _Mount:
        with self._filesystem._lock:
            if self._mountpoint in self._filesystem._mounts:
                raise MountError(f"{self._mountpoint} is already mounted; unmount it first")
            self._filesystem._mounts[self._mountpoint] = self._mount
        return self._mount

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        with self._filesystem._lock:
            del self._filesystem._mounts[self._mountpoint]
        self._filesystem._release(self._mount.layers)
