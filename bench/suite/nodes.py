"""A node: containerd with one snapshotter beside it, lazylayer or a peer."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from lazylayer_testing.servers.containerd import Containerd
from lazylayer_testing.servers.process import ServerError, ServerProcess, run
from servers.lazylayer_daemon import LazylayerDaemon
from suite.bench import Peer
from suite.memory import family, proportional_set_size

__all__ = ["DEFAULT_PULL", "Node"]

DEFAULT_PULL = "ctr-remote --address {containerd} images rpull --snapshotter {name} --plain-http {reference}"
"""The default command with which a peer pulls."""

_LAZYLAYER = Peer("lazylayer", "", "")
_TRIES = 5


class Node:
    """Both daemons, with their files below the short path `directory`; by default with `lazylayer serve`."""

    def __init__(
        self, directory: Path, host: str, peer: Peer | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self._directory = directory
        self._host = host
        self._peer = peer or _LAZYLAYER
        self._socket = directory / "s.sock"
        self._root = directory / "s"
        self._daemon: LazylayerDaemon | None = None
        if peer is None:
            values = {"log.level": '"INFO"', **(settings or {})}
            self._daemon = LazylayerDaemon(self._root, plain_http=[host], settings=values)
            self._socket = self._daemon.address
        self.containerd = Containerd(directory / "c", snapshotters={self._peer.name: self._socket})

    def __enter__(self) -> Node:
        with ExitStack() as stack:
            if self._daemon is not None:
                stack.enter_context(self._daemon)
                self._pid = self._daemon.pid
            else:
                self._pid = self._start_peer(stack)
            stack.enter_context(self.containerd)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def pull(self, reference: str) -> None:
        """Pull an image lazily, each with its own client."""
        if self._daemon is not None:
            self._daemon.pull(self.containerd.address, reference)
            return
        values = {"containerd": self.containerd.address, "name": self._peer.name, "reference": reference}
        run([word.format(**values) for word in shlex.split(self._peer.pull)])

    def run(self, reference: str, command: Sequence[str]) -> None:
        """Run a container of a pulled image until it exits."""
        self.containerd.ctr("run", "--rm", "--snapshotter", self._peer.name, reference, "once", *command)

    def mount(self, mountpoint: Path) -> None:
        """Mount the only pulled image, of one layer, for reading; `umount` ends it.

        Nothing refers to the view, so containerd may collect it before it is mounted; then try again.
        """
        mountpoint.mkdir(exist_ok=True)
        listing = self._snapshots("list").splitlines()[1:]
        (key,) = [words[0] for words in map(str.split, listing) if words and words[-1] == "Committed"]
        for attempt in range(_TRIES):
            view = f"view-{attempt}"
            self._snapshots("view", view, key)
            try:
                command = shlex.split(self._snapshots("mounts", str(mountpoint), view))
            except ServerError:
                if attempt == _TRIES - 1:
                    raise
                continue
            subprocess.run(command, check=True)
            return

    def remove(self, reference: str) -> None:
        """Remove an image and its snapshots."""
        self.containerd.ctr("images", "remove", "--sync", reference)

    def memory(self) -> int:
        """Return the proportional set size of the snapshotter and its children, in bytes."""
        return proportional_set_size(family(self._pid))

    def _snapshots(self, *arguments: str) -> str:
        return self.containerd.ctr("snapshots", "--snapshotter", self._peer.name, *arguments)

    def _start_peer(self, stack: ExitStack) -> int:
        self._root.mkdir(parents=True)
        words = [
            word.format(sock=self._socket, root=self._root, host=self._host) for word in shlex.split(self._peer.command)
        ]
        server = ServerProcess(words, log=self._directory / "peer.log", ready=self._socket.is_socket)
        server.start()
        stack.callback(_unmount_below, self._root)
        stack.callback(server.stop)
        return server.pid


def _unmount_below(directory: Path) -> None:
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        if (mountpoint := line.split()[1]).startswith(f"{directory}/"):
            subprocess.run(["umount", "--lazy", mountpoint], check=True)
