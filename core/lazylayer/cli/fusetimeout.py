"""Let reads fail before the kernel gives a whole mount up.

A kernel may be told, by `fs.fuse.default_request_timeout` and `fs.fuse.max_request_timeout`, to abort a FUSE
connection on which one request has no answer for so many seconds. Every reader of the mount gets errors then, forever.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from lazylayer.api.settings import Settings
from lazylayer.logger import logger

__all__ = ["within_fuse_timeout"]

_SYSCTLS = Path("/proc/sys/fs/fuse")
_SHARE = 0.5
"""The part of the kernel's time for one read. It also counts the time in which no thread was free for the request."""


def within_fuse_timeout(settings: Settings, sysctls: Path | None = None) -> Settings:
    """Return settings whose reads end, with EIO, well before the kernel aborts a connection."""
    names = ("default_request_timeout", "max_request_timeout")
    limits = [seconds for name in names if (seconds := _seconds((sysctls or _SYSCTLS) / name))]
    fetch = settings.fetch
    longest = _SHARE * min(limits, default=float("inf"))
    if fetch.read_timeout <= longest:
        return settings
    logger.info("reads end after {longest:g} s, since fs.fuse.*_request_timeout is set", longest=longest)
    stall = min(fetch.stall_timeout, longest)
    fetch = msgspec.structs.replace(fetch, read_timeout=longest, stall_timeout=stall)
    return msgspec.structs.replace(settings, fetch=fetch)


def _seconds(sysctl: Path) -> int:
    """Return the value of a setting of the kernel; 0, which is no limit, if it has none."""
    try:
        return int(sysctl.read_text())
    except (OSError, ValueError):
        return 0
