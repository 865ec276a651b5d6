"""The confinement of a recorded workload: an OCI runtime configuration for runc.

The image is not trusted. Its workload gets runc's default confinement: namespaces of its own, masked and read-only
paths, no devices but the usual, few capabilities, no new privileges, and a seccomp filter; and, where the kernel
allows it, a user namespace in which its root is a user that owns nothing on the host.

Sources: the OCI runtime specification 1.0.2; `runc spec`; the system calls that Docker's default profile blocks,
docs.docker.com/engine/security/seccomp.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import msgspec

__all__ = ["Confinement", "specification"]

_CAPABILITIES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP"),
    *("CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL"),
)
"""Docker's without CAP_MKNOD, CAP_NET_RAW, CAP_AUDIT_WRITE and CAP_SETFCAP."""

_MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/devices/virtual/powercap", "/sys/firmware"),
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_BLOCKED = (
    *("acct", "add_key", "adjtimex", "bpf", "clock_adjtime", "clock_settime", "create_module", "delete_module"),
    *("finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "get_kernel_syms", "get_mempolicy", "init_module"),
    *("io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl", "kcmp", "kexec_file_load"),
    *("kexec_load", "keyctl", "lookup_dcookie", "mbind", "mount", "mount_setattr", "move_mount", "move_pages"),
    *("name_to_handle_at", "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open", "pivot_root"),
    *("process_vm_readv", "process_vm_writev", "ptrace", "query_module", "quotactl", "quotactl_fd", "reboot"),
    *("request_key", "set_mempolicy", "setns", "settimeofday", "stime", "swapoff", "swapon", "sysfs", "syslog"),
    *("umount", "umount2", "unshare", "uselib", "userfaultfd", "ustat", "vhangup", "vm86", "vm86old"),
)
_ENOSYS = 38
_NEW_NAMESPACES = 0x7E020000
"""The flags of clone(2) that make namespaces: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""

_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MOUNTS: tuple[dict[str, Any], ...] = (
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
    },
    {
        "destination": "/dev/shm",  # noqa: S108
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
)
_SYS_OPTIONS = ["nosuid", "noexec", "nodev", "ro"]


class Confinement(msgspec.Struct, frozen=True):
    """The confinement of a workload, as far as this machine and its user allow.

    `first_id` is the host's ID of the workload's root, None without a user namespace. `seccomp` tells
    whether runc can filter system calls, `network` whether the workload has the host's network.
    """

    first_id: int | None
    ids: int
    seccomp: bool
    network: bool


def specification(
    root: str, confinement: Confinement, arguments: Sequence[str], user: tuple[int, int], config: dict[str, Any]
) -> dict[str, Any]:
    """Return the runtime configuration for one command; `config` is that of the image."""
    environment = list(config.get("Env") or ())
    if not any(each.startswith("PATH=") for each in environment):
        environment.append(_PATH)
    namespaces = ["pid", "ipc", "uts", "mount"]
    linux: dict[str, Any] = {"maskedPaths": list(_MASKED), "readonlyPaths": list(_READ_ONLY)}
    linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    if not confinement.network:
        namespaces.append("network")
    if confinement.first_id is not None:
        namespaces.append("user")
        mapping = {"containerID": 0, "hostID": confinement.first_id, "size": confinement.ids}
        linux["uidMappings"] = linux["gidMappings"] = [mapping]
    if confinement.seccomp:
        linux["seccomp"] = _seccomp()
    linux["namespaces"] = [{"type": each} for each in namespaces]
    return {
        "ociVersion": "1.0.2",
        "hostname": "recording",
        "process": {
            "user": {"uid": user[0], "gid": user[1]},
            "args": list(arguments),
            "env": environment,
            "cwd": config.get("WorkingDir") or "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
            "noNewPrivileges": True,
        },
        "root": {"path": root},
        "mounts": [*_MOUNTS, _sys(confinement)],
        "linux": linux,
    }


def _sys(confinement: Confinement) -> dict[str, Any]:
    if confinement.network and confinement.first_id is not None:
        # A user namespace may mount the sysfs of its own network only.
        return {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", *_SYS_OPTIONS]}
    return {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": _SYS_OPTIONS}


def _seccomp() -> dict[str, Any]:
    flags = [1 << number for number in range(32) if _NEW_NAMESPACES >> number & 1]
    # A condition that holds if the flag is set; several in one rule would have to hold together.
    tests = [{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"} for flag in flags]
    seccomp: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": list(_BLOCKED), "action": "SCMP_ACT_ERRNO"},
            # Its flags are in memory, where no filter sees them; C libraries use clone(2) then.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
            *({"names": ["clone"], "action": "SCMP_ACT_ERRNO", "args": [test]} for test in tests),
        ],
    }
    if architectures := _ARCHITECTURES.get(platform.machine()):
        seccomp["architectures"] = list(architectures)
    return seccomp
