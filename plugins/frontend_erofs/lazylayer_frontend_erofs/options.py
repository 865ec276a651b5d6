"""The options of the EROFS frontend."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from lazylayer.api.units import PositiveDuration, Size

__all__ = ["NAME", "Options"]

NAME = "frontend_erofs"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.frontend_erofs]`. Sizes in bytes."""

    threads: Annotated[int, msgspec.Meta(ge=2, le=1024)] = 64
    """Reads of one mount that may wait for the network at once."""
    max_read: Annotated[int, msgspec.Meta(ge=4096, le=1024 * 1024, multiple_of=4096)] = 1024 * 1024
    """The largest read that the kernel asks for at once."""
    max_background: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 128
    """Reads of one mount that the kernel may have in flight in the background."""
    stored_metadata: Size = 32 * 1024 * 1024
    """Metadata of a mount to put into the kernel's cache ahead of use."""
    metadata_cache: Size = 256 * 1024 * 1024
    """Finished metadata to keep on disk for the next mount of a layer; 0 keeps none."""
    keeper: Literal["auto", "process", "systemd", "off"] = "auto"
    """The keeper of mounts while the daemon is restarted: systemd's descriptor store, or a process of ours."""
    keeper_timeout: PositiveDuration = 120.0
    """Seconds that readers of a mount wait for a new daemon to take it over; then they get errors."""
    local_images: Size | None = None
    """Whole images to keep on disk, so that the next mount of a complete layer needs no server; 0 keeps none.

    By default a tenth of the file system, at most 50 GiB."""
    direct: bool = True
    """Let data go straight to EROFS's page cache; otherwise the kernel keeps two copies."""
