"""Check, without mounting, what this machine lacks for EROFS on a served file."""

from __future__ import annotations

import os
import platform
import re

from lazylayer.api.mounting import Missing

__all__ = ["explain", "what_machine_lacks"]

_FIRST_KERNEL = (6, 12)


def what_machine_lacks() -> Missing | None:
    """Return what this machine lacks; None if nothing is known to be missing."""
    if os.geteuid() != 0:
        return Missing("only root may mount EROFS", "run as root, or use frontend_fuse")
    if _kernel_version() < _FIRST_KERNEL:
        return Missing(f"Linux {platform.release()} cannot mount EROFS from a file", "use Linux 6.12 or newer")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        remedy = "load the kernel's module (modprobe fuse), or give the container the device"
        return Missing("/dev/fuse is missing or closed", remedy)
    return None


def explain(error: OSError) -> str:
    """Return why the kernel refused a mount, as far as it is known."""
    missing = what_machine_lacks()
    return str(missing) if missing is not None else error.strerror or str(error)


def _kernel_version() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)
