"""The options of the snapshotter."""

from __future__ import annotations

import msgspec

__all__ = ["Options"]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.snapshotter_containerd]`."""

    address: str = ""
    """The socket; empty for `snapshotter.sock` in the run directory."""
    threads: int = 256
    """Calls answered at once; threads are made when needed."""
    wait_for_prefetch: bool = False
    """Make a container only when the prefetch of its layers is over, or after `prefetch.timeout`."""
    check_diff_ids: bool = False
    """Read each complete layer once more, to check its archive against the chain ID that it is mounted under."""
