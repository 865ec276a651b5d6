"""A client of containerd's own gRPC API, for one namespace."""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from lazylayer.errors import LazylayerError
from lazylayer_snapshotter_containerd.api import containerd as api
from lazylayer_snapshotter_containerd.api import snapshots
from lazylayer_snapshotter_containerd.api.types import Descriptor, Empty, FieldMask, Mount
from lazylayer_wire import Message

__all__ = ["CancelledError", "Containerd", "ContainerdError", "open_channel"]

Answer = TypeVar("Answer", bound=Message)

_LEASE_TIME = timedelta(hours=24)
_CONNECT_SECONDS = 10.0
_CALL_SECONDS = 120.0
"""Longer than a snapshotter takes to resolve a layer, and to fall back."""
_UNPACK_SECONDS = 3600.0
_MAX_MESSAGE = 64 * 1024 * 1024
_RECONNECT_MILLISECONDS = 250
_CANCELLED = "the pull was cancelled"


class CancelledError(LazylayerError):
    """The client's work was cancelled."""


class ContainerdError(LazylayerError):
    """containerd refused a call. `status` is the name of its gRPC status, as in `NOT_FOUND`."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


def open_channel(socket: str) -> grpc.Channel:
    """Return a channel to containerd at a unix socket, which connects when it is used, and again after a restart."""
    options = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE),
        ("grpc.initial_reconnect_backoff_ms", _RECONNECT_MILLISECONDS),
        ("grpc.min_reconnect_backoff_ms", _RECONNECT_MILLISECONDS),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MILLISECONDS),
    ]
    return grpc.insecure_channel(f"unix:{socket}", options=options)


class Containerd:
    """containerd at a unix socket. A context manager. Whatever it creates belongs to its lease, if it has one.

    Every call raises ContainerdError with DEADLINE_EXCEEDED if containerd does not answer within `seconds`, and
    CancelledError after `cancel`. Calls may be made from several threads.

    :param channel: a channel that is already open, and stays so.
    """

    def __init__(
        self, socket: str, namespace: str, *, seconds: float = _CALL_SECONDS, channel: grpc.Channel | None = None
    ) -> None:
        self._seconds = seconds
        self._socket = socket
        self._namespace = namespace
        self._lease = ""
        self._own = channel is None
        self._channel = open_channel(socket) if channel is None else channel
        self._lock = threading.Lock()
        self._cancelled = False
        self._under_way: set[Any] = set()

    def __enter__(self) -> Self:
        try:
            grpc.channel_ready_future(self._channel).result(_CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            self.__exit__(None, None, None)
            message = f"containerd does not answer at {self._socket}; start it, or name its socket with --containerd"
            raise ContainerdError(message, "UNAVAILABLE") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own:
            self._channel.close()

    def cancel(self) -> None:
        """Fail the calls under way and all that come, but for those that clean up. Idempotent."""
        with self._lock:
            self._cancelled = True
            under_way = list(self._under_way)
        for call in under_way:
            call.cancel()

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Keep containerd from collecting what is made inside the block, for a day at most."""
        identity = f"lazylayer-pull-{secrets.token_hex(8)}"
        expiry = (datetime.now(UTC) + _LEASE_TIME).strftime("%Y-%m-%dT%H:%M:%SZ")
        request = api.CreateLeaseRequest(identity, {"containerd.io/gc.expire": expiry})
        self._call(api.LEASES, "Create", request, api.CreateLeaseResponse)
        self._lease = identity
        try:
            yield
        finally:
            self._lease = ""
            self._call(api.LEASES, "Delete", api.DeleteLeaseRequest(identity), Empty, cleaning=True)

    def ensure_namespace(self) -> None:
        """Make the namespace if it does not exist."""
        request = api.CreateNamespaceRequest(api.Namespace(self._namespace))
        try:
            self._call(api.NAMESPACES, "Create", request, api.NamespaceResponse)
        except ContainerdError as error:
            if error.status != "ALREADY_EXISTS":
                raise

    def snapshotter_address(self, name: str) -> str | None:
        """Return the socket of the snapshotter of this name, "" for one of containerd's own, None if there is none."""
        request = api.PluginsRequest([f"type==io.containerd.snapshotter.v1,id=={name}"])
        plugins = self._call(api.INTROSPECTION, "Plugins", request, api.PluginsResponse).plugins
        return plugins[0].exports.get("address", "") if plugins else None

    # --- content -----------------------------------------------------------------------------------

    def write_content(self, descriptor: Descriptor, pieces: Iterable[bytes], labels: Mapping[str, str]) -> bool:
        """Put a blob into the content store, which verifies its digest; return False if it was there.

        A blob that was there gets the labels, too.
        """
        try:
            self._write_content(descriptor, pieces, labels)
        except ContainerdError as error:
            if error.status != "ALREADY_EXISTS":
                raise
            self.label_content(descriptor.digest, labels)
            return False
        return True

    def has_content(self, digest: str) -> bool:
        """Return True if the namespace has a blob."""
        request = api.ContentInfoRequest(digest)
        return self._find(api.CONTENT, "Info", request, api.ContentInfoResponse) is not None

    def label_content(self, digest: str, labels: Mapping[str, str]) -> None:
        """Set labels of a blob; the others stay."""
        mask = FieldMask([f"labels.{name}" for name in labels])
        request = api.UpdateContentRequest(api.ContentInfo(digest, 0, dict(labels)), mask)
        self._call(api.CONTENT, "Update", request, api.ContentInfoResponse)

    def _write_content(self, descriptor: Descriptor, pieces: Iterable[bytes], labels: Mapping[str, str]) -> None:
        ref = f"lazylayer-{descriptor.digest}"
        requests: queue.SimpleQueue[api.WriteContentRequest | None] = queue.SimpleQueue()
        call = self._channel.stream_stream(
            f"/{api.CONTENT}/Write",
            request_serializer=lambda message: message.encode(),
            response_deserializer=api.WriteContentResponse.decode,
        )
        answers = call(iter(requests.get, None), metadata=self._metadata())
        self._begin(answers)

        def ask(request: api.WriteContentRequest) -> api.WriteContentResponse:
            requests.put(request)
            deadline = threading.Timer(self._seconds, give_up)
            deadline.daemon = True
            deadline.start()
            try:
                answer: api.WriteContentResponse = next(answers)
                return answer
            finally:
                deadline.cancel()

        late = threading.Event()

        def give_up() -> None:
            late.set()
            answers.cancel()

        action = api.WriteAction
        try:
            start = ask(api.WriteContentRequest(action.STAT, ref, descriptor.size, descriptor.digest)).offset
            offset = 0
            for piece in pieces:
                # What an earlier attempt has written is not written again.
                if offset + len(piece) > start:
                    skip = max(start - offset, 0)
                    ask(api.WriteContentRequest(action.WRITE, ref, 0, "", offset + skip, piece[skip:]))
                offset += len(piece)
            commit = api.WriteContentRequest(
                action.COMMIT, ref, descriptor.size, descriptor.digest, offset, b"", dict(labels)
            )
            ask(commit)
        except grpc.RpcError as error:
            self._raise_if_cancelled()
            raise _explain("Content.Write", error, self._seconds if late.is_set() else 0.0) from None
        finally:
            self._under_way.discard(answers)
            requests.put(None)
            answers.cancel()

    # --- images, layers ----------------------------------------------------------------------------

    def set_image(self, name: str, target: Descriptor) -> None:
        """Name an image, or give the name to another one."""
        request = api.ImageRequest(api.Image(name, {}, target))
        try:
            self._call(api.IMAGES, "Create", request, api.ImageResponse)
        except ContainerdError as error:
            if error.status != "ALREADY_EXISTS":
                raise
            self._call(api.IMAGES, "Update", request, api.ImageResponse)

    def image_target(self, name: str) -> str:
        """Return the digest that the namespace has under an image's name, or nothing."""
        answer = self._find(api.IMAGES, "Get", api.GetImageRequest(name), api.ImageResponse)
        image = answer.image if answer is not None else None
        return image.target.digest if image is not None and image.target is not None else ""

    def apply(self, layer: Descriptor, mounts: list[Mount], *, seconds: float = _UNPACK_SECONDS) -> str:
        """Unpack a layer of the content store into mounts; return its diff ID."""
        answer = self._call(api.DIFF, "Apply", api.ApplyRequest(layer, mounts), api.ApplyResponse, seconds)
        return answer.applied.digest if answer.applied is not None else ""

    # --- snapshots ---------------------------------------------------------------------------------

    def prepare(self, snapshotter: str, key: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        """Make an active snapshot. Raises ContainerdError, with ALREADY_EXISTS if its target is there."""
        request = snapshots.PrepareSnapshotRequest(snapshotter, key, parent, dict(labels))
        return self._call(snapshots.SERVICE, "Prepare", request, snapshots.MountsResponse).mounts

    def commit(self, snapshotter: str, key: str, name: str, labels: Mapping[str, str]) -> None:
        """Make an active snapshot the committed snapshot `name`."""
        request = snapshots.CommitSnapshotRequest(snapshotter, name, key, dict(labels))
        self._call(snapshots.SERVICE, "Commit", request, Empty)

    def remove_snapshot(self, snapshotter: str, key: str) -> None:
        """Remove a snapshot."""
        self._call(snapshots.SERVICE, "Remove", snapshots.RemoveSnapshotRequest(snapshotter, key), Empty, cleaning=True)

    def snapshot_labels(self, snapshotter: str, key: str) -> dict[str, str] | None:
        """Return the labels of a snapshot, or None if it does not exist."""
        request = snapshots.StatSnapshotRequest(snapshotter, key)
        answer = self._find(snapshots.SERVICE, "Stat", request, snapshots.StatSnapshotResponse)
        if answer is None:
            return None
        return answer.info.labels if answer.info is not None else {}

    # --- calling -----------------------------------------------------------------------------------

    def _metadata(self) -> list[tuple[str, str]]:
        lease = [("containerd-lease", self._lease)] if self._lease else []
        return [("containerd-namespace", self._namespace), *lease]

    def _find(self, service: str, method: str, request: Message, answer: type[Answer]) -> Answer | None:
        """Call, and return None if containerd has no such thing."""
        try:
            return self._call(service, method, request, answer)
        except ContainerdError as error:
            if error.status == "NOT_FOUND":
                return None
            raise

    def _call(
        self,
        service: str,
        method: str,
        request: Message,
        answer: type[Answer],
        seconds: float = 0.0,
        *,
        cleaning: bool = False,
    ) -> Answer:
        seconds = seconds or self._seconds
        calling: Any = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda message: message.encode(),
            response_deserializer=answer.decode,
        )
        call = calling.future(request, metadata=self._metadata(), timeout=seconds)
        if not cleaning:
            self._begin(call)
        try:
            result: Answer = call.result()
        except grpc.FutureCancelledError:
            raise CancelledError(_CANCELLED) from None
        except grpc.RpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            raise _explain(f"{service.rpartition('.')[2]}.{method}", error, seconds if late else 0.0) from None
        finally:
            self._under_way.discard(call)
        return result

    def _begin(self, call: Any) -> None:
        """Count a call as under way, so that it can be cancelled; it is at once if everything was."""
        with self._lock:
            self._under_way.add(call)
        if self._cancelled:
            call.cancel()

    def _raise_if_cancelled(self) -> None:
        if self._cancelled:
            raise CancelledError(_CANCELLED)


def _explain(what: str, error: Any, late: float) -> ContainerdError:
    """Return the error of a call; `late` is its deadline in seconds if that has passed."""
    if late:
        return ContainerdError(f"containerd, {what}: no answer within {late:g} s", "DEADLINE_EXCEEDED")
    return ContainerdError(f"containerd, {what}: {error.details()}", error.code().name)
