"""Mount, check, unmount: what a snapshotter, or `lazylayer mount`, asks for.

A mount by labels shows one layer, as overlayfs wants a lower directory; a mount by reference shows a layer or a
whole image. Both have leases of their layers from one `LayerStore`, and both are prefetched and then completed
in the background.

The lock is `Filesystem._lock`; no layer is opened, and nothing mounted, while it is held. Mounts of
different mountpoints run at the same time. `Filesystem._choosing` is held while frontends are probed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lazylayer.api.events import EventKind, LayerState, MountState, StateEvent
from lazylayer.api.labels import LAYER_SIZE, SKIP_VERIFY, LayerSource, label_number, layer_source
from lazylayer.api.mounting import MountableTree, MountedTree, MountOptions
from lazylayer.api.oci import Descriptor, Reference
from lazylayer.errors import (
    AuthenticationError,
    LazylayerError,
    MountError,
    NotMountedError,
    UnavailableError,
    VerificationError,
)
from lazylayer.layers.chains import Neighbours
from lazylayer.layers.image import Image, open_image, resolve_image
from lazylayer.layers.layer import Layer
from lazylayer.layers.store import LayerStore, Lease
from lazylayer.linux.mounttable import is_mounted
from lazylayer.logger import logger
from lazylayer.mounts.frontends import choose_frontend, clear_mountpoint, remove_left_mount
from lazylayer.program import Program

__all__ = ["Filesystem"]

_REFRESHES = 3


class _Mount:
    """A mountpoint and its layers; `mounted` is None while it is being mounted."""

    __slots__ = ("leases", "looked", "mounted", "reference")

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.leases: Sequence[Lease] = ()
        self.mounted: MountedTree | None = None
        self.looked = False

    def look(self) -> None:
        """Count, once, what a shared cache had of the layers before anything was read."""
        if not self.looked:
            self.looked = True
            for layer in self.layers:
                layer.inventory.look()

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(lease.layer for lease in self.leases)

    def states(self) -> tuple[LayerState, ...]:
        return tuple(lease.layer.state() for lease in self.leases)

    def close(self) -> None:
        for lease in self.leases:
            lease.close()


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
        """Mount the layer that `labels` name at `mountpoint`, an existing directory.

        Labels count as the layer's annotations, too.
        The other layers of the image that the labels list are opened concurrently, in the background. With
        `check`, a layer whose source does not answer now is rejected, unless it answered a moment ago or the
        whole layer is here; and the image is prefetched.

        Raises MountError for bad labels and mountpoints, and what resolving raises; nothing stays mounted then.
        """
        source = layer_source(labels)
        with self._claim(mountpoint, source.reference) as mount, self.layers.scheduler.foreground():
            # A mount that is made again is in use already: its containers have read what they need at their start.
            self._neighbours.open(source, labels, prefetch=check)
            lease = self._lend(source, labels)
            mount.leases = (lease,)
            if check:
                self._check_source(lease.layer)
            self.layers.prefetcher.layer(lease.layer, labels)
            mount.mounted = self._show(lease.layer, mountpoint, mount, suid=True)
        self._tell("mounted", mountpoint, mount)

    def mount_image(
        self, mountpoint: str, reference: Reference, layer: int | None = None, *, suid: bool = False
    ) -> None:
        """Mount an image, all its layers merged, or only layer number `layer`, 0 the lowest.

        Set-user-ID and device files do nothing, unless `suid`: no container stands between them and this machine.
        Raises MountError, and what resolving raises; nothing stays mounted then.
        """
        with self._claim(mountpoint, reference) as mount, self.layers.scheduler.foreground():
            image = self.open_image(reference, layer)
            mount.leases = image.leases
            for each in image.layers:
                self.layers.prefetcher.layer(each, {})
            tree: MountableTree = image.merged() if layer is None else image.layers[0]
            if layer is None:
                prefetch = partial(self.layers.prefetcher.image, image, {})
                threading.Thread(target=prefetch, name="lazylayer-image", daemon=True).start()
            mount.mounted = self._show(tree, mountpoint, mount, suid=suid)
        self._tell("mounted", mountpoint, mount)

    def open_image(self, reference: Reference, layer: int | None = None) -> Image:
        """Open all layers of an image, or only layer number `layer`, until `Image.close`."""
        resolved = resolve_image(self._hooks, self._settings, reference)
        descriptors = resolved.manifest.layers
        if layer is not None:
            if not 0 <= layer < len(descriptors):
                raise MountError(f"{reference} has layers 0 to {len(descriptors) - 1}; there is no layer {layer}")
            descriptors = [descriptors[layer]]
        return open_image(self.layers, resolved, descriptors)

    # --- afterwards --------------------------------------------------------------------------------

    def check(self, mountpoint: str, *, wait: bool = True) -> None:
        """Return if the mount at `mountpoint` can be used now.

        With `wait`, waits for a planned prefetch that is under way, up to `prefetch.timeout`; a late one is only
        logged. An earlier reader waits for its own bytes, and no more. Then the source of each incomplete
        layer must answer; tokens and redirected addresses that it rejects are renewed.

        Raises NotMountedError for a mountpoint that is not ours, MountError for one that is still being
        mounted, UnavailableError or AuthenticationError for a source that fails.
        """
        self._forget_gone()
        mount = self._find(mountpoint)
        if mount.mounted is None:
            raise MountError(f"{mountpoint} is still being mounted")
        with self.layers.scheduler.foreground():
            for layer in mount.layers:
                if wait and not self.layers.prefetcher.wait(layer, self._settings.prefetch.timeout):
                    logger.warning("the prefetch of {digest} is still under way", digest=layer.digest)
                self._check_source(layer)

    def unmount(self, mountpoint: str, *, force: bool = False) -> None:
        """Unmount, and return the layers; what they fetched stays in the cache.

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
        """Wait until `mountpoint` is unmounted, by any program, or `timeout` seconds passed; return True if it is."""
        mounted = self._find(mountpoint).mounted
        return mounted is None or mounted.wait(timeout)

    def mounts(self) -> tuple[MountState, ...]:
        """Return the current mounts with their layers, in the order in which they were made."""
        current = self._current()
        for _, mount, _ in current:
            mount.look()
        return tuple(
            MountState(path, str(mount.reference), mounted.frontend, mount.states()) for path, mount, mounted in current
        )

    def disk_usage(self, mountpoint: str) -> int:
        """Return the bytes of the cache that belong to the layers at `mountpoint`, as far as they were seen."""
        return sum(layer.inventory.held_bytes for layer in self._find(mountpoint).layers)

    def is_complete(self, mountpoint: str) -> bool:
        """Return True if every chunk of the layers at `mountpoint` is on this machine. Raises NotMountedError."""
        return all(layer.complete for layer in self._find(mountpoint).layers)

    def frontend(self) -> str:
        """Return the frontend that mounts are made with, chosen at the first call."""
        with self._choosing:
            if not self._frontend:
                self._frontend = choose_frontend(self._hooks, self._settings.mount)
            return self._frontend

    def daemon_started(self) -> None:
        """Choose the frontend, and tell plugins to prepare for the first mount. Never raises."""
        try:
            frontend = self.frontend()
        except LazylayerError as error:
            frontend = ""
            logger.warning("{error}", error=error)
        self._hooks.daemon_started(frontend)

    def remove_left(self, mountpoint: str) -> None:
        """Remove a mount that a dead process left at `mountpoint`, with all that was kept of it.

        Raises NotMountedError if there is none of ours, MountError if its process lives or it stays.
        """
        remove_left_mount(self._hooks, os.path.abspath(mountpoint))  # noqa: PTH100 - must not touch the mount

    def stop(self, *, leave: bool = False) -> None:
        """Unmount everything, in use or not, and then fail all requests under way.

        With `leave`, mounts that can outlive this process stay, for the next process that mounts the same there:
        a daemon that is restarted or upgraded. Their readers wait for it, so they must not see requests fail.
        """
        for mountpoint, _, mounted in self._current():
            if leave and mounted.leave():
                continue
            try:
                self.unmount(mountpoint, force=True)
            except LazylayerError as error:
                logger.warning("while closing: {error}", error=error)
        self._hooks.interrupt()

    def close(self, *, leave: bool = False) -> None:
        """Stop (see `stop`), and close layers and caches."""
        self.stop(leave=leave)
        self.layers.close()

    # --- parts -------------------------------------------------------------------------------------

    @contextmanager
    def _claim(self, mountpoint: str, reference: Reference) -> Iterator[_Mount]:
        """Reserve a mountpoint while it is being mounted; give everything back if that fails."""
        self._forget_gone()
        mountpoint = os.path.abspath(mountpoint)  # noqa: PTH100 - symlinks stay as they are
        mount = _Mount(reference)
        with self._lock:
            if mountpoint in self._mounts:
                raise MountError(f"{mountpoint} is already mounted; unmount it first")
            self._mounts[mountpoint] = mount
        try:
            # A dead mount must not be touched before it is removed.
            clear_mountpoint(self._hooks, mountpoint, self.frontend())
            if not is_mounted(mountpoint) and not Path(mountpoint).is_dir():
                raise MountError(f"{mountpoint} is not a directory")
            yield mount
        except BaseException:
            with self._lock:
                del self._mounts[mountpoint]
            mount.close()
            raise

    def _find(self, mountpoint: str) -> _Mount:
        with self._lock:
            mount = self._mounts.get(os.path.abspath(mountpoint))  # noqa: PTH100 - must not touch the mount
        if mount is None:
            raise NotMountedError(f"{mountpoint}: nothing is mounted there by this program")
        return mount

    def _current(self) -> list[tuple[str, _Mount, MountedTree]]:
        self._forget_gone()
        with self._lock:
            return [(path, mount, mount.mounted) for path, mount in self._mounts.items() if mount.mounted is not None]

    def _forget(self, mountpoint: str, mount: _Mount) -> None:
        """Unregister a mount that is gone, and return its layers; once, however many threads noticed."""
        with self._lock:
            if self._mounts.get(mountpoint) is not mount:
                return
            del self._mounts[mountpoint]
        self._tell("unmounted", mountpoint, mount)
        mount.close()

    def _forget_gone(self) -> None:
        """Unregister the mounts that another program has unmounted."""
        with self._lock:
            mounts = list(self._mounts.items())
        for mountpoint, mount in mounts:
            if mount.mounted is not None and mount.mounted.wait(0):
                self._forget(mountpoint, mount)

    def _lend(self, source: LayerSource, labels: Mapping[str, str]) -> Lease:
        descriptor = Descriptor("", source.digest, label_number(labels, LAYER_SIZE) or 0, dict(labels))
        (descriptor,) = self.layers.annotate(source.reference, [descriptor])
        lease = self.layers.lend(source.reference, descriptor, skip_verify=SKIP_VERIFY in labels)
        contents = lease.layer.contents
        label = self._hooks.formats().info(contents.format).toc_digest_label
        promised = descriptor.annotations.get(label)
        if lease.verified and promised != contents.toc_digest:
            lease.close()
            raise VerificationError(
                f"layer {source.digest}: the label {label} says {promised or 'nothing'}, "
                f"the layer's table of contents is {contents.toc_digest}"
            )
        return lease

    def _check_source(self, layer: Layer) -> None:
        interval = self._settings.resolve.check_interval
        if layer.complete or time.monotonic() - layer.blob.last_contact < interval:
            return
        for attempt in range(1, _REFRESHES + 1):
            try:
                layer.blob.check()
                return
            except (UnavailableError, AuthenticationError) as error:
                if attempt == _REFRESHES:
                    raise
                logger.debug("{digest}: check {n} failed: {error}", digest=layer.digest, n=attempt, error=error)

    def _show(self, tree: MountableTree, mountpoint: str, mount: _Mount, *, suid: bool) -> MountedTree:
        settings = self._settings.mount
        options = MountOptions(settings.allow_other, settings.debug, suid)
        frontend = self._hooks.of(self.frontend())
        mounted = frontend.mount_tree(tree, os.path.abspath(mountpoint), options)  # noqa: PTH100 - as in _claim
        if not mounted.needs_tree:
            for layer in mount.layers:
                layer.inventory.mark_available()
        return mounted

    def _tell(self, kind: EventKind, mountpoint: str, mount: _Mount) -> None:
        frontend = mount.mounted.frontend if mount.mounted is not None else ""
        event = StateEvent(kind, str(mount.reference), mount.states(), mountpoint, frontend=frontend)
        self._hooks.report_state(event)
