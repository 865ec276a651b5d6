"""Check, without mounting, what this machine lacks for EROFS on a served file."""

from __future__ import annotations

import os
import platform
import re

__all__ = ["explain", "what_machine_lacks"]

_FIRST_KERNEL = (6, 12)


def what_machine_lacks() -> str:
    """Return what this machine lacks, and the way out; empty if nothing is known to be missing."""
    if os.geteuid() != 0:
        return "only root may mount EROFS; run as root, or use frontend_fuse"
    if _kernel_version() < _FIRST_KERNEL:
        return f"Linux {platform.release()} cannot mount EROFS from a file; 6.12 and newer can"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return (
            "/dev/fuse is missing or closed; load the kernel's module (modprobe fuse), or give the container the device"
        )
    return ""


def explain(error: OSError) -> str:
    """Return why the kernel refused a mount, as far as it is known."""
    return what_machine_lacks() or error.strerror or str(error)


def _kernel_version() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)
