"""Run pjdfstest over overlayfs on EROFS, as a container sees an image, and over overlayfs on plain directories.

pjdfstest is not packaged: build it (https://github.com/pjd/pjdfstest) and name its directory in `PJDFSTEST`. Each of
its scripts is a case. A check that fails over our mount but not over plain directories is a failure; docs/torture.md
says what is skipped and why.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from e2e.command_line import CommandLine
from torture.campaign import Campaign

__all__ = ["Posix"]

_GROUPS = (
    "chmod", "chown", "ftruncate", "link", "mkdir", "mkfifo", "mknod", "open", "posix_fallocate", "rename", "rmdir",
    "symlink", "truncate", "unlink", "utimensat",
)  # fmt: skip
"""All but `chflags` and `granular`: flags of files and NFSv4 access lists are FreeBSD's."""


def _suite() -> Path:
    return Path(os.environ.get("PJDFSTEST", "/nowhere"))


class Posix(Campaign):
    """Each kind is a group of pjdfstest; a case is one script of it, in both places."""

    name = "posix"
    unit = "checks"
    counts = 40
    deadline = 300.0
    address_space = 64 << 30
    kinds = _GROUPS

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        tree = directory / "tree" / "inside"
        tree.mkdir(parents=True)
        (tree / "file").write_bytes(b"lower")
        self._command_line = CommandLine(directory, **{"mount.frontend": "frontend_erofs", "log.level": "ERROR"})
        image = f"oci:{directory}/image:v"
        self._command_line.run("convert", f"dir:{tree.parent}", image)
        layer = directory / "layer"
        layer.mkdir()
        self._command_line.run("mount", "--suid", image, layer)
        self._places = {"ours": self._overlay("ours", layer), "plain": self._overlay("plain", tree.parent)}

    def _overlay(self, name: str, lower: Path) -> Path:
        """Mount overlayfs as containerd does, and return a directory that comes from the lower layer."""
        for each in ("upper", "work", "merged"):
            (self.directory / name / each).mkdir(parents=True)
        base = self.directory / name
        options = f"lowerdir={lower},upperdir={base}/upper,workdir={base}/work,index=off"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", base / "merged"], check=True)
        return base / "merged" / "inside"

    def run(self, kind: str, seed: int) -> str:
        """Run one script in both places; return the checks that fail in ours alone."""
        scripts = sorted((_suite() / "tests" / kind).glob("*.t"))
        if seed > len(scripts):
            return ""
        failed = {name: self._failed(scripts[seed - 1], place) for name, place in self._places.items()}
        self.outcomes[f"{kind}: fails over plain directories too"] += len(failed["ours"] & failed["plain"])
        return "; ".join(sorted(failed["ours"] - failed["plain"]))

    def _failed(self, script: Path, place: Path) -> set[str]:
        done = subprocess.run(["sh", script], cwd=place, capture_output=True, text=True, check=False, timeout=250)
        lines = done.stdout.splitlines()
        if place is self._places["ours"]:
            self.tried += sum(line.startswith(("ok", "not ok")) for line in lines)
            self.outcomes[f"{script.parent.name}: scripts skipped by themselves"] += "1..0" in done.stdout
        # The names of files are random.
        return {
            f"{script.parent.name}/{script.name} check {line.split()[2]}"
            for line in lines
            if line.startswith("not ok") and "TODO" not in line
        }

    def close(self) -> None:
        """Leave the mounts to the runner."""

    @classmethod
    def available(cls) -> str:
        """Return why this machine cannot run it, or an empty string."""
        if not os.access(_suite() / "pjdfstest", os.X_OK):
            return "there is no pjdfstest; build it, and name its directory in PJDFSTEST"
        return ""
