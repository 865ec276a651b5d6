"""The options of the FUSE frontend."""

from __future__ import annotations

from typing import Annotated

import msgspec

from lazylayer.api.units import Duration

__all__ = ["NAME", "Options"]

NAME = "frontend_fuse"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.frontend_fuse]`. Times in seconds, sizes in bytes.

    Layers never change, so the kernel may keep what it was told for as long as it likes.
    """

    attribute_timeout: Duration = 3600.0
    """Seconds that the kernel keeps a file's attributes."""
    entry_timeout: Duration = 3600.0
    """Seconds that the kernel keeps what a name leads to."""
    negative_timeout: Duration = 3600.0
    """Seconds that the kernel keeps that a name does not exist."""
    kernel_cache: bool = True
    """Keep the page cache after the last close of a file."""
    threads: bool = True
    """Serve requests concurrently; without, one slow read holds up everything."""
    keep_thread_state: bool = True
    """Keep Python's state between two requests that one thread serves: faster by half."""
    max_background: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 64
    """Read-aheads that the kernel may have in flight at once."""
    max_read: Annotated[int, msgspec.Meta(ge=4096, le=1024 * 1024)] = 128 * 1024
    """The largest read that the kernel asks for at once; libfuse 2 takes at most 128 KiB."""
