"""Make and remove FUSE mounts: with mount(2) as root, else through fusermount.

Both give an open /dev/fuse that belongs to the mount. fusermount is a set-uid program of FUSE's
that mounts for ordinary users what is safe for them: without set-uid files and devices.
"""

from __future__ import annotations

import array
import errno
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

from lazylayer.api.mounting import Missing, MountOptions
from lazylayer.errors import MountError
from lazylayer_frontends import mountcalls
from lazylayer_frontends.mountcalls import MountFlags

__all__ = ["KIND", "abort", "connect", "disconnect", "others_allowed", "what_is_missing"]

_DEVICE = "/dev/fuse"
KIND = "fuse.lazylayer"
"""The type that the kernel lists for our mounts."""
_SECONDS_FOR_FUSERMOUNT = 30


def what_is_missing() -> Missing | None:
    """Return what this machine lacks for mounting with FUSE, or None."""
    try:
        os.close(os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        remedy = "load the kernel's module (modprobe fuse), or give the container the device"
        return Missing(f"there is no {_DEVICE}", remedy)
    except OSError as error:
        remedy = "give the container the device, or the user the right"
        return Missing(f"{_DEVICE} cannot be opened ({error.strerror})", remedy)
    if os.geteuid() == 0:
        if not _may_mount():
            return Missing("the right to mount is missing", "run with CAP_SYS_ADMIN (for a container: --privileged)")
    elif _fusermount() is None:
        return Missing("only root may mount here", "install fusermount (Debian: apt install fuse3)")
    try:
        import lazylayer_frontend_fuse.libfuse  # noqa: F401 - finds the library
    except ImportError as error:
        return Missing(f"fusepy is missing ({error})", "pip install fusepy")
    except OSError as error:
        return Missing(f"libfuse 2 is missing ({error})", "install it (Debian: apt install libfuse2)")
    return None


def others_allowed() -> bool:
    """Return True if this user may show a mount to other users: root, or where /etc/fuse.conf allows it."""
    if os.geteuid() == 0:
        return True
    try:
        lines = Path("/etc/fuse.conf").read_text(errors="replace").splitlines()
    except OSError:
        return False
    return "user_allow_other" in [line.strip() for line in lines]


def connect(target: str, source: str, options: MountOptions, *, max_read: int) -> int:
    """Mount at `target`, a directory's real path; return the /dev/fuse to serve.

    Programs that look into the mount wait until it is served. Raises MountError.
    """
    words = ["default_permissions", f"max_read={max_read}"]
    if options.allow_other:
        words.append("allow_other")
    try:
        if os.geteuid() == 0:
            return _mount_as_root(target, source, words, suid=options.suid)
        return _mount_as_user(target, source, words)
    except OSError as error:
        reason = what_is_missing() or error.strerror or error
        raise MountError(f"{target} cannot be mounted with FUSE: {reason}") from error


def disconnect(target: str, *, force: bool) -> None:
    """Unmount `target`. Raises OSError; EBUSY for a mount in use, unless `force`."""
    if os.geteuid() == 0:
        mountcalls.unmount(target, force=force)
        return
    program = _fusermount()
    if program is None:
        raise OSError(errno.ENOENT, "fusermount is not installed any more", target)
    lazily = ["-z"] if force else []
    done = subprocess.run(
        [program, "-u", *lazily, "--", target], capture_output=True, check=False, timeout=_SECONDS_FOR_FUSERMOUNT
    )
    if done.returncode != 0:
        text = done.stderr.decode(errors="replace").strip()
        busy = "busy" in text.lower()
        raise OSError(errno.EBUSY if busy else errno.EINVAL, text or "fusermount failed", target)


def abort(device: str) -> None:
    """End the connection of the mount whose device is `device` (major:minor): readers get errors."""
    try:
        (Path("/sys/fs/fuse/connections") / device.partition(":")[2] / "abort").write_bytes(b"1")
    except OSError:
        # Not there: the file system of connections is not mounted, or the connection has ended.
        return


def _mount_as_root(target: str, source: str, options: list[str], *, suid: bool) -> int:
    descriptor = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        kind = stat.S_IFMT(Path(target).stat().st_mode)
        own = [f"fd={descriptor}", f"rootmode={kind:o}", f"user_id={os.geteuid()}", f"group_id={os.getegid()}"]
        flags = MountFlags.READ_ONLY | MountFlags.NO_ATIME
        if not suid:
            flags |= MountFlags.NO_SUID | MountFlags.NO_DEV
        mountcalls.mount(source, target, KIND, flags, ",".join(own + options))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _mount_as_user(target: str, source: str, options: list[str]) -> int:
    program = _fusermount()
    if program is None:
        raise OSError(errno.EPERM, "only root may mount, and fusermount is not installed", target)
    escaped = source.replace("\\", "\\\\").replace(",", "\\,")
    words = ",".join(["ro", "nosuid", "nodev", "subtype=lazylayer", f"fsname={escaped}", *options])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        done = subprocess.run(
            [program, "-o", words, "--", target],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            capture_output=True,
            check=False,
            timeout=_SECONDS_FOR_FUSERMOUNT,
        )
        if done.returncode != 0:
            raise OSError(errno.EPERM, done.stderr.decode(errors="replace").strip() or "fusermount failed", target)
        return _receive_descriptor(ours)


def _receive_descriptor(connection: socket.socket) -> int:
    received = array.array("i")
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(received.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(data[: received.itemsize])
            return received[0]
    raise OSError(errno.EPROTO, "fusermount mounted but did not hand over the mount")


def _fusermount() -> str | None:
    return shutil.which("fusermount3") or shutil.which("fusermount")


def _may_mount() -> bool:
    """Return True if this process has CAP_SYS_ADMIN (bit 21) in effect."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & 1 << 21)
    return True
