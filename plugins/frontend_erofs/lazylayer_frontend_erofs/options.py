"""The options of the EROFS frontend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

if TYPE_CHECKING:
    pass

__all__ = ["NAME", "Options"]

NAME = "frontend_erofs"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.frontend_erofs]`. Sizes in bytes."""

    threads: Annotated[int, msgspec.Meta(ge=2, le=1024)] = 64
    """How many reads of one mount may wait for the network at once."""
    max_read: Annotated[int, msgspec.Meta(ge=4096, le=1024 * 1024, multiple_of=4096)] = 1024 * 1024
    """The largest read that the kernel asks for at once."""
    max_background: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 128
    """How many reads of one mount the kernel may have under way in the background."""
    stored_metadata: Annotated[int, msgspec.Meta(ge=0)] = 32 * 1024 * 1024
    """How much of a mount's metadata is put into the kernel's cache ahead of use."""
    metadata_cache: Annotated[int, msgspec.Meta(ge=0)] = 256 * 1024 * 1024
    """How many bytes of finished metadata are kept on disk for the next mount of a layer; 0 keeps none."""
    keeper: Literal["auto", "process", "systemd", "off"] = "auto"
    """Who keeps mounts alive while the daemon is restarted: systemd's descriptor store, or a process of ours."""
    keeper_timeout: Annotated[float, msgspec.Meta(gt=0)] = 120.0
    """How many seconds our keeper waits for a new daemon; then readers get errors."""
    local_images: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """How many bytes of whole images are kept on disk, so that the next mount of a layer that is complete needs
    no server; 0 keeps none. By default a tenth of the file system, and not more than 50 GiB."""
    direct: bool = True
    """Whether data go straight to EROFS's page cache; otherwise the kernel keeps two copies."""
