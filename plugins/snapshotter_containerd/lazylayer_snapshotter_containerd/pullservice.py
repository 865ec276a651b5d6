"""Carry out `lazylayer pull` for clients of the daemon's control socket."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import grpc
import msgspec

from lazylayer.api.decoding import decode_json
from lazylayer.api.oci import PATH_SCHEMES, Reference, parse_reference
from lazylayer.cli import Conversation
from lazylayer.errors import ResolveError
from lazylayer.layers import resolve_image
from lazylayer.mounts import Filesystem
from lazylayer.program import Program
from lazylayer_snapshotter_containerd.client import Containerd, open_channel
from lazylayer_snapshotter_containerd.pulling import Daemon, PulledImage, pull_image
from lazylayer_snapshotter_containerd.snapshotter import Snapshotter

__all__ = ["PullArguments", "PullService"]


class PullArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request of a client: an image and its destination. `directory` is that of the client."""

    reference: str
    directory: str
    containerd: str
    namespace: str
    snapshotter: str
    plain_http: bool = False


class PullService:
    """Pulls images. Safe to use from any thread.

    Connections to containerd stay open, so that a pull need not make one.

    :param address: the socket of the snapshotter.
    """

    def __init__(self, program: Program, filesystem: Filesystem, snapshotter: Snapshotter, address: Path) -> None:
        self._program = program
        self._daemon = Daemon(program.hooks, filesystem.layers, snapshotter, str(address))
        self._lock = threading.Lock()
        self._channels: dict[str, grpc.Channel] = {}

    def pull(self, arguments: bytes, conversation: Conversation) -> PulledImage:
        """Pull an image for a client, until it is there or the client has gone. Raises LazylayerError."""
        wanted = decode_json(arguments, PullArguments)
        reference = _reference(wanted)
        settings = self._program.settings
        with Containerd(wanted.containerd, wanted.namespace, channel=self._channel(wanted.containerd)) as containerd:
            conversation.on_cancel(containerd.cancel)
            try:
                resolved = resolve_image(self._program.hooks, settings, reference)
            except ResolveError as error:
                if not wanted.plain_http or reference.host in settings.resolve.plain_http:
                    raise
                raise type(error)(
                    f"{error}; the daemon speaks plain HTTP to the hosts in resolve.plain_http: add {reference.host}"
                ) from error
            return pull_image(self._daemon, containerd, resolved, wanted.snapshotter, conversation)

    def close(self) -> None:
        """Close the connections to containerd."""
        with self._lock:
            channels = list(self._channels.values())
            self._channels.clear()
        for channel in channels:
            channel.close()

    def _channel(self, socket: str) -> grpc.Channel:
        with self._lock:
            channel = self._channels.get(socket)
            if channel is None:
                channel = self._channels[socket] = open_channel(socket)
        return channel


def _reference(wanted: PullArguments) -> Reference:
    """Return the image, its path as seen from the client's directory. Raises InvalidReferenceError."""
    reference = parse_reference(wanted.reference)
    if reference.scheme in PATH_SCHEMES:
        path = os.path.normpath(Path(wanted.directory) / reference.repository)
        return msgspec.structs.replace(reference, repository=path)
    return reference
