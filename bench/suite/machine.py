"""Describe this machine, and what it lacks."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lazylayer.api.mounting import Missing
from lazylayer.api.settings import PluginsSettings, Settings
from lazylayer.plugin.registry import Plugins
from suite.results import Machine

__all__ = ["MissingError", "describe_machine", "frontends_here", "require", "why_not"]

FRONTENDS = ("frontend_erofs", "frontend_fuse")

_PROGRAMS = {
    "containerd": ("containerd", "ctr", "ctr-remote", "runc"),
    "registry": ("docker-registry", "skopeo"),
    "debootstrap": ("debootstrap",),
    "npm": ("npm", "node"),
}


class MissingError(Exception):
    """This machine lacks something that a workload needs; the workload is skipped."""


def require(*needs: str) -> None:
    """Raise MissingError if one of these needs is missing here. See `why_not`."""
    if why := why_not(needs):
        raise MissingError(why)


def why_not(needs: Sequence[str]) -> str:
    """Return why something with these needs cannot be measured here, or "".

    Needs are `root`, `fuse`, `drop_caches`, `frontend` (at least one) and the keys of `_PROGRAMS`.
    """
    return "; ".join(why for need in needs if (why := _lacks(need)))


def _lacks(need: str) -> str:
    if need == "root":
        return "" if os.geteuid() == 0 else "requires root"
    if need == "fuse":
        return "" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "/dev/fuse is missing or not accessible"
    if need == "drop_caches":
        return "" if os.access("/proc/sys/vm/drop_caches", os.W_OK) else "the kernel's caches cannot be dropped"
    if need == "frontend":
        here, missing = frontends_here()
        return "" if here else "no frontend works here: " + "; ".join(f"{each}: {why}" for each, why in missing.items())
    missing_programs = [program for program in _PROGRAMS[need] if shutil.which(program) is None]
    return f"not installed: {', '.join(missing_programs)}" if missing_programs else ""


@functools.cache
def frontends_here() -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the frontends that work here, and why the others do not."""
    plugins = Plugins.load(PluginsSettings(enabled=FRONTENDS))
    plugins.configure(Settings())
    hooks = plugins.hooks()
    found = {name: hooks.of(name).probe_frontend() for name in FRONTENDS}
    missing = {name: str(each) for name, each in found.items() if isinstance(each, Missing)}
    return tuple(name for name in FRONTENDS if name not in missing), missing


def describe_machine(directory: Path) -> Machine:
    """Describe this machine without its name; `directory` holds the trees."""
    memory = Path("/proc/meminfo").read_text().split(maxsplit=2)[1]
    command = ["findmnt", "--noheadings", "--output=FSTYPE", "--target", str(directory)]
    kind = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return Machine(
        architecture=platform.machine(),
        processors=len(os.sched_getaffinity(0)),
        memory=int(memory) * 1024,
        kernel=platform.release().partition("-")[0],
        system=platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        file_system=kind,
        python=platform.python_version(),
        lazylayer=importlib.metadata.version("lazylayer"),
    )
