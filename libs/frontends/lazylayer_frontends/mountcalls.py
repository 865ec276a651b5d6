"""Make and remove mounts: mount(2), umount2(2), fsmount(2) and move_mount(2).

No function here looks into a mounted file system, so a process may call them on mounts that it serves itself.
Safe to call from any thread.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Sequence
from enum import IntFlag

__all__ = ["MountFlags", "allow_suid", "attach", "create", "mount", "unmount"]

_MNT_FORCE = 1
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
# Newer system calls have the same numbers on all machines but Alpha.
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 429, 430, 431, 432, 442
_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CMD_CREATE = 0, 1, 6
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV, _MOUNT_ATTR_NOATIME = 0x01, 0x02, 0x04, 0x10
_MOUNT_ATTRIBUTES = struct.Struct("=QQQQ")
"""struct mount_attr: attributes to set, to clear, propagation, user namespace."""
_FROM_EMPTY_PATH = 4
_EMPTY_PATH = 0x1000
_AT_FDCWD = -100
_MESSAGE_BYTES = 4096


class MountFlags(IntFlag):
    """The flags of mount(2) that a frontend may need; see mount(2)."""

    READ_ONLY = 1
    NO_SUID = 2
    NO_DEV = 4
    NO_ATIME = 1024


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: MountFlags, data: str) -> None:
    """Mount a file system of type `kind` at `target`; `data` holds its own options.

    Raises OSError with the kernel's reason.
    """
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(data))
    if _libc().mount(*arguments) != 0:
        _raise_errno(target)


def unmount(target: str, *, force: bool = False) -> None:
    """Unmount the topmost mount at `target`.

    With `force` it goes at once, even if it is in use, and requests that wait for a FUSE server fail.
    Raises OSError: EBUSY for a mount in use, EINVAL if nothing is mounted.
    """
    flags = _UMOUNT_NOFOLLOW | (_MNT_FORCE | _MNT_DETACH if force else 0)
    if _libc().umount2(os.fsencode(target), flags) != 0:
        _raise_errno(target)


def create(kind: str, options: Sequence[tuple[str, str | None]]) -> int:
    """Make a read-only mount of type `kind` that is attached nowhere yet.

    :param options: each with its value, or None for those without; `source` is one of them.
    :returns: a descriptor of its mount, for `attach`; closing it undoes the mount unless it was
        attached, as soon as no file in it is open.

    Raises OSError with the kernel's messages.
    """
    system_call = _libc().syscall
    context = system_call(_FSOPEN, kind.encode(), _CLOEXEC)
    if context < 0:
        _raise_errno(kind)
    try:
        for key, value in options:
            command, text = (_SET_FLAG, None) if value is None else (_SET_STRING, os.fsencode(value))
            if system_call(_FSCONFIG, context, command, key.encode(), text, 0) != 0:
                _raise_message(context, f"{kind}: {key}")
        if system_call(_FSCONFIG, context, _CMD_CREATE, None, None, 0) != 0:
            _raise_message(context, kind)
        mounted: int = system_call(_FSMOUNT, context, _CLOEXEC, _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOATIME)
        if mounted < 0:
            _raise_message(context, kind)
        return mounted
    finally:
        os.close(context)


def attach(descriptor: int, target: str) -> None:
    """Attach a mount that `create` made to `target`. Raises OSError."""
    arguments = (_MOVE_MOUNT, descriptor, b"", _AT_FDCWD, os.fsencode(target), _FROM_EMPTY_PATH)
    if _libc().syscall(*arguments) != 0:
        _raise_errno(target)


def allow_suid(mount: int | str, *, allowed: bool) -> None:
    """Let files of a mount be set-user-ID programs and devices, or not: `nosuid` and `nodev`.

    `mount` is a descriptor from `create`, or a mountpoint. Raises OSError.
    """
    attributes = _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV
    change = _MOUNT_ATTRIBUTES.pack(0 if allowed else attributes, attributes if allowed else 0, 0, 0)
    place = (mount, b"", _EMPTY_PATH) if isinstance(mount, int) else (_AT_FDCWD, os.fsencode(mount), 0)
    if _libc().syscall(_MOUNT_SETATTR, *place, change, ctypes.c_size_t(len(change))) != 0:
        _raise_errno(str(mount))


def _raise_errno(target: str) -> None:
    number = ctypes.get_errno() or errno.EIO
    raise OSError(number, os.strerror(number), target)


def _raise_message(context: int, what: str) -> None:
    """Raise the error of the last call, with the messages that the kernel left in the context."""
    number = ctypes.get_errno() or errno.EIO
    messages = []
    try:
        while message := os.read(context, _MESSAGE_BYTES):
            messages.append(message.decode(errors="replace").strip().partition(" ")[2])
    except OSError:
        pass  # there are no more
    raise OSError(number, "; ".join([os.strerror(number), *messages]), what)
