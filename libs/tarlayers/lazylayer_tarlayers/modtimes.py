"""Times in tables of contents, as RFC 3339. Thread-safe."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from functools import lru_cache

__all__ = ["format_modtime", "parse_modtime"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MODTIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)")
_LAST_SECOND = 253_402_300_799


def parse_modtime(text: str) -> int:
    """Return the nanoseconds since 1970 of an RFC 3339 time; 0 for an invalid one, as in the Go reader."""
    match = _MODTIME.fullmatch(text)
    if match is None:
        return 0
    try:
        moment = datetime.fromisoformat(match[1] + match[3])
        seconds = round((moment - _EPOCH).total_seconds())
    except (ValueError, OverflowError):
        return 0
    return seconds * 1_000_000_000 + int((match[2] or "").ljust(9, "0"))


@lru_cache(maxsize=4096)
def format_modtime(mtime: int) -> str:
    """Return the RFC 3339 time of `mtime` nanoseconds since 1970; empty for 1970 itself.

    A time without a four-digit year becomes the nearest that has one.
    """
    seconds, nanoseconds = divmod(mtime, 1_000_000_000)
    if not mtime:
        return ""
    seconds = max(-62_135_596_800, min(seconds, _LAST_SECOND))
    fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    # Not datetime.fromtimestamp: it depends on what the platform's C library can do.
    days, rest = divmod(seconds, 86_400)
    day = date.fromordinal(719_163 + days).isoformat()
    return f"{day}T{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}{fraction}Z"
