"""Runs one command in a container whose root lies on a read-only directory, with runc.

What the command writes goes to an overlay in memory and is lost. The container has namespaces of its
own but the host's network, and Docker's usual capabilities. Needs root and the program `runc`.
Source of the configuration: the OCI runtime specification 1.0.2.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loguru import logger

from lazylayer.errors import BuildError

__all__ = ["run_container"]

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CAPABILITIES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL"),
    "CAP_AUDIT_WRITE",
)
_MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev"]},  # noqa: S108
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
]


def run_container(scratch: Path, lower: Path, config: Mapping[str, Any], command: str, seconds: float) -> None:
    """Runs `command`, or what `config` (that of the image) runs, on top of `lower`, for at most `seconds`.

    Files for it are made in `scratch`. Raises BuildError if it cannot be started or fails; being ended
    when the time is over is no failure.
    """
    if shutil.which("runc") is None:
        raise BuildError("a workload is recorded with runc, which is not installed; as root: apt install runc")
    arguments = shlex.split(command) or [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    if not arguments:
        raise BuildError("the image does not say what it runs; say it, as in --record 'python3 -c pass'")
    with _root(scratch, lower) as root:
        (scratch / "config.json").write_text(json.dumps(_specification(root, config, arguments)))
        name = scratch.name
        base = ["runc", "--root", str(scratch / "runc")]
        process = subprocess.Popen(
            [*base, "run", "--bundle", str(scratch), name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            logger.info("the workload is ended after {seconds:g} s", seconds=seconds)
            return
        finally:
            _end(base, name, process)
        if process.returncode:
            reason = said.decode(errors="replace").strip().rpartition("\n")[2][-500:]
            raise BuildError(f"the workload {arguments} ended with {process.returncode}: {reason}")


def _end(base: list[str], name: str, process: subprocess.Popen[bytes]) -> None:
    subprocess.run([*base, "delete", "--force", name], capture_output=True, check=False)
    process.communicate()


@contextmanager
def _root(scratch: Path, lower: Path) -> Iterator[Path]:
    """A writable root on top of `lower`, its upper directory in memory."""
    upper, root = scratch / "upper", scratch / "rootfs"
    upper.mkdir()
    root.mkdir()
    _mount("-t", "tmpfs", "-o", "mode=700", "tmpfs", str(upper))
    try:
        for name in ("files", "work"):
            (upper / name).mkdir(mode=0o755)
        options = f"lowerdir={lower},upperdir={upper}/files,workdir={upper}/work"
        _mount("-t", "overlay", "-o", options, "overlay", str(root))
        try:
            yield root
        finally:
            subprocess.run(["umount", "--lazy", str(root)], capture_output=True, check=False)
    finally:
        subprocess.run(["umount", "--lazy", str(upper)], capture_output=True, check=False)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    if done.returncode:
        raise BuildError(f"recording a workload needs root: {done.stderr.decode(errors='replace').strip()}")


def _specification(root: Path, config: Mapping[str, Any], arguments: list[str]) -> dict[str, Any]:
    environment = list(config.get("Env") or ())
    if not any(each.startswith("PATH=") for each in environment):
        environment.append(_PATH)
    uid, gid = _user(root, str(config.get("User") or ""))
    sets = ("bounding", "effective", "permitted")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": uid, "gid": gid},
            "args": arguments,
            "env": environment,
            "cwd": config.get("WorkingDir") or "/",
            "capabilities": dict.fromkeys(sets, _CAPABILITIES),
            "noNewPrivileges": True,
        },
        "root": {"path": str(root)},
        "mounts": _MOUNTS,
        "linux": {"namespaces": [{"type": each} for each in ("pid", "ipc", "uts", "mount")]},
    }


def _user(root: Path, user: str) -> tuple[int, int]:
    """The ids of `user[:group]`, each a number or a name that the image's own files know."""
    name, _, group = user.partition(":")
    uid, gid = 0, 0
    if name:
        uid, gid = (int(name), 0) if name.isdigit() else _look_up(root / "etc/passwd", name, (2, 3))
    if group:
        gid = int(group) if group.isdigit() else _look_up(root / "etc/group", group, (2, 2))[0]
    return uid, gid


def _look_up(file: Path, name: str, columns: tuple[int, int]) -> tuple[int, int]:
    # A link out of the image must not be followed.
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            fields = line.rstrip("\n").split(":")
            if fields[0] == name and len(fields) > max(columns):
                return int(fields[columns[0]]), int(fields[columns[1]])
    raise BuildError(f"the image's {file.name} does not know the user or group {name!r}")
