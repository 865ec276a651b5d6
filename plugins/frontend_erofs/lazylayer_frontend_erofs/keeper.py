"""The keeper: a small process that holds the /dev/fuse descriptors of mounts while a daemon is restarted.

As long as it has a descriptor open, the kernel lets readers wait where it would otherwise give them
errors. It reads nothing from a descriptor and knows nothing of images. Run as a script, with nothing
but the standard library:

    python -I -S keeper.py DIRECTORY

It listens at `keeper.sock` in the directory, for processes of the same user, and understands, each
message a JSON object in one packet:

    {"put": NAME, "grace": SECONDS} with a descriptor: hold it. The sender is its owner.
    {"take": NAME}: a copy of the descriptor comes with the answer. The sender is its owner now.
    {"drop": NAME}: close it.
    {"list": true}: the names.

The answer is {"ok": true} or false, with "names" for a list, and "groups", the control groups of the daemon that
the keeper could not leave. When an owner's connection ends, by its
death or otherwise, a new owner has `grace` seconds to come; then the descriptor is closed and readers
get errors. A descriptor whose mount is gone is closed soon. Without descriptors and connections
the keeper ends after a while.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import struct
import sys
import time

SOCKET_NAME = "keeper.sock"
_LOCK_NAME = "keeper.lock"
_LARGEST_MESSAGE = 4096
_LINGER = 2.0
_LOOK = 30.0
_GROUP = "lazylayer-keeper"
_HIERARCHIES = frozenset({"name=systemd", "memory", "freezer", "pids"})
"""Those of cgroup v1 whose groups are ended as a whole: by systemd, by a lack of memory, by a container's end."""


class _Kept:
    """A descriptor, its owner, and the deadline for a new owner to come."""

    def __init__(self, descriptor: int, owner: int, grace: float) -> None:
        self.descriptor = descriptor
        self.owner = owner
        self.grace = grace
        self.deadline: float | None = None


class Keeper:
    """The process's state: connections by descriptor, kept descriptors by name. One thread."""

    def __init__(self, listener: socket.socket, groups: list[str]) -> None:
        self._listener = listener
        self._groups = groups
        self._clients: dict[int, socket.socket] = {}
        self._kept: dict[str, _Kept] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)

    def run(self) -> None:
        """Serve until there is nothing left to keep."""
        while True:
            ready = self._poll.poll(self._timeout())
            if not ready and not self._kept and not self._clients:
                return
            for descriptor, _ in ready:
                if descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._clients:
                    self._serve(self._clients[descriptor])
            self._drop_ended()

    def _timeout(self) -> float | None:
        """Return the milliseconds to the next deadline."""
        deadlines = [kept.deadline for kept in self._kept.values() if kept.deadline is not None]
        if deadlines:
            return min(max(0.0, min(deadlines) - time.monotonic()), _LOOK) * 1000 + 1
        if self._kept:
            return _LOOK * 1000
        return None if self._clients else _LINGER * 1000

    def _drop_ended(self) -> None:
        """Drop descriptors that no new owner came for, and those of mounts that are gone.

        The descriptors are not waited on: each request would wake this process, for nothing.
        """
        now = time.monotonic()
        poll = select.poll()
        for kept in self._kept.values():
            poll.register(kept.descriptor, 0)
        gone = {descriptor for descriptor, _ in poll.poll(0)}
        for name, kept in list(self._kept.items()):
            if kept.descriptor in gone or (kept.deadline is not None and kept.deadline <= now):
                self._drop(name)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        _, uid, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.geteuid():
            client.close()
            return
        self._clients[client.fileno()] = client
        self._poll.register(client, select.POLLIN)

    def _serve(self, client: socket.socket) -> None:
        descriptors: list[int] = []
        try:
            data, descriptors, _, _ = socket.recv_fds(client, _LARGEST_MESSAGE, 1)
            if not data:
                self._leave(client)
                return
            answer, copy = self._carry_out(json.loads(data), client.fileno(), descriptors)
            socket.send_fds(client, [json.dumps(answer).encode()], copy)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._leave(client)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _carry_out(
        self, message: dict[str, object], owner: int, descriptors: list[int]
    ) -> tuple[dict[str, object], list[int]]:
        """Return the answer and the descriptors that go with it. Take the kept ones out of `descriptors`."""
        if "put" in message and descriptors:
            name = str(message["put"])
            self._drop(name)
            self._kept[name] = _Kept(descriptors.pop(), owner, float(str(message["grace"])))
            return {"ok": True}, []
        if "take" in message:
            found = self._kept.get(str(message["take"]))
            if found is None:
                return {"ok": False}, []
            found.owner, found.deadline = owner, None
            return {"ok": True}, [found.descriptor]
        if "drop" in message:
            return {"ok": self._drop(str(message["drop"]))}, []
        return {"ok": True, "names": sorted(self._kept), "groups": self._groups}, []

    def _leave(self, client: socket.socket) -> None:
        """End a connection; its descriptors wait for another owner."""
        number = client.fileno()
        self._poll.unregister(client)
        del self._clients[number]
        client.close()
        for kept in self._kept.values():
            if kept.owner == number:
                kept.owner, kept.deadline = -1, time.monotonic() + kept.grace

    def _drop(self, name: str) -> bool:
        kept = self._kept.pop(name, None)
        if kept is None:
            return False
        os.close(kept.descriptor)
        return True


def _stand_apart() -> list[str]:
    """Leave the daemon's control groups, which may be killed as a whole. Return those that the machine keeps us in."""
    for line in _lines("/proc/self/mounts"):
        _, place, kind, options = line.split(" ")[:4]
        if kind == "cgroup2" or (kind == "cgroup" and not _HIERARCHIES.isdisjoint(options.split(","))):
            with contextlib.suppress(OSError):
                os.makedirs(f"{place}/{_GROUP}", exist_ok=True)  # noqa: PTH103 - pathlib is not imported, to stay small
                _write(f"{place}/{_GROUP}/cgroup.procs", str(os.getpid()))
    with contextlib.suppress(OSError):
        _write("/proc/self/oom_score_adj", "-900")
    with contextlib.suppress(OSError):
        _write("/proc/self/comm", "lazylayer-keep")
    groups = []
    for line in _lines("/proc/self/cgroup"):
        _, hierarchy, path = line.split(":", 2)
        if (not hierarchy or hierarchy in _HIERARCHIES) and path not in ("/", f"/{_GROUP}"):
            groups.append(f"{hierarchy}:{path}")
    return groups


def _lines(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as lines:  # noqa: PTH123
            return lines.read().splitlines()
    except OSError:
        return []


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(text)


def main(directory: str) -> None:
    """Run the keeper of a directory, unless it has one."""
    os.chdir(directory)
    lock = os.open(_LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    groups = _stand_apart()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET_NAME)  # noqa: PTH108
    os.umask(0o177)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        # Relative to the directory: an absolute path may be longer than an address can be.
        listener.bind(SOCKET_NAME)
        listener.listen(64)
        Keeper(listener, groups).run()
        os.unlink(SOCKET_NAME)  # noqa: PTH108


if __name__ == "__main__":
    main(sys.argv[1])
