"""Serve `containerd.services.snapshots.v1.Snapshots` over gRPC from a `Snapshotter`."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc

from lazylayer.api.text import one_line
from lazylayer_snapshotter_containerd.api import snapshots as api
from lazylayer_snapshotter_containerd.api.types import Empty, Timestamp
from lazylayer_snapshotter_containerd.deadlines import DEADLINE, Deadline, Janitor
from lazylayer_snapshotter_containerd.logger import logger
from lazylayer_snapshotter_containerd.problems import NoRoomError, SnapshotError
from lazylayer_snapshotter_containerd.snapshotter import TARGET_LABEL, Snapshotter
from lazylayer_snapshotter_containerd.store import Snapshot
from lazylayer_wire import Message

__all__ = ["make_server"]

Request = TypeVar("Request", bound=Message)

_LISTED_AT_ONCE = 100
_MAX_MESSAGE = 16 * 1024 * 1024


def make_server(snapshotter: Snapshotter, threads: int, seconds: float = DEADLINE) -> grpc.Server:
    """Return a server for the snapshotter without an address; it answers `threads` calls at once.

    Each call is answered within `seconds`, but a Prepare that mounts a layer.
    """
    server = grpc.server(
        ThreadPoolExecutor(threads, "lazylayer-snapshots"),
        options=[("grpc.max_receive_message_length", _MAX_MESSAGE), ("grpc.max_send_message_length", _MAX_MESSAGE)],
    )
    service, deadline = _Service(snapshotter, seconds), Deadline(threads, seconds)
    handlers = {
        "Prepare": _unary(api.PrepareSnapshotRequest, service.prepare, deadline, may_wait=_mounts_a_layer),
        "View": _unary(api.PrepareSnapshotRequest, service.view, deadline),
        "Mounts": _unary(api.MountsRequest, service.mounts, deadline),
        "Commit": _unary(api.CommitSnapshotRequest, service.commit, deadline),
        "Remove": _unary(api.RemoveSnapshotRequest, service.remove, deadline),
        "Stat": _unary(api.StatSnapshotRequest, service.stat, deadline),
        "Update": _unary(api.UpdateSnapshotRequest, service.update, deadline),
        "Usage": _unary(api.UsageRequest, service.usage, deadline),
        "Cleanup": _unary(api.CleanupRequest, service.cleanup),
        "List": grpc.unary_stream_rpc_method_handler(
            _list_answered(service.list, deadline), api.ListSnapshotsRequest.decode, _encode
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(api.SERVICE, handlers),))
    return server


class _Service:
    """One method for each of containerd's: it turns a request into a call, and the result into an answer."""

    def __init__(self, snapshotter: Snapshotter, seconds: float) -> None:
        self._snapshotter = snapshotter
        self._seconds = seconds
        self._janitor = Janitor(snapshotter.cleanup)

    def prepare(self, request: api.PrepareSnapshotRequest) -> api.MountsResponse:
        asked = request.snapshotter, request.key, request.parent, request.labels
        return api.MountsResponse(self._snapshotter.prepare(*asked))

    def view(self, request: api.PrepareSnapshotRequest) -> api.MountsResponse:
        asked = request.snapshotter, request.key, request.parent, request.labels
        return api.MountsResponse(self._snapshotter.view(*asked))

    def mounts(self, request: api.MountsRequest) -> api.MountsResponse:
        return api.MountsResponse(self._snapshotter.mounts(request.snapshotter, request.key))

    def commit(self, request: api.CommitSnapshotRequest) -> Empty:
        self._snapshotter.commit(request.snapshotter, request.key, request.name, request.labels, request.parent)
        return Empty()

    def remove(self, request: api.RemoveSnapshotRequest) -> Empty:
        self._snapshotter.remove(request.snapshotter, request.key)
        return Empty()

    def stat(self, request: api.StatSnapshotRequest) -> api.StatSnapshotResponse:
        return api.StatSnapshotResponse(_info(self._snapshotter.stat(request.snapshotter, request.key)))

    def update(self, request: api.UpdateSnapshotRequest) -> api.StatSnapshotResponse:
        info = request.info or api.Info()
        paths = request.update_mask.paths if request.update_mask is not None else []
        updated = self._snapshotter.update(request.snapshotter, info.name, info.labels, paths)
        return api.StatSnapshotResponse(_info(updated))

    def list(self, request: api.ListSnapshotsRequest) -> list[api.ListSnapshotsResponse]:
        infos = [_info(each) for each in self._snapshotter.find(request.snapshotter, request.filters)]
        starts = range(0, len(infos), _LISTED_AT_ONCE)
        return [api.ListSnapshotsResponse(infos[start : start + _LISTED_AT_ONCE]) for start in starts]

    def usage(self, request: api.UsageRequest) -> api.UsageResponse:
        return api.UsageResponse(*self._snapshotter.usage(request.snapshotter, request.key))

    def cleanup(self, request: api.CleanupRequest) -> Empty:
        del request
        self._janitor.ask(self._seconds / 2)  # it goes on by itself
        return Empty()


def _mounts_a_layer(request: api.PrepareSnapshotRequest) -> bool:
    return TARGET_LABEL in request.labels


def _info(snapshot: Snapshot) -> api.Info:
    created, updated = Timestamp.of(snapshot.created), Timestamp.of(snapshot.updated)
    return api.Info(snapshot.name, snapshot.parent, int(snapshot.kind), created, updated, snapshot.labels)


def _encode(message: Message) -> bytes:
    return message.encode()


def _unary(
    request: type[Request],
    method: Callable[[Request], Message],
    deadline: Deadline | None = None,
    may_wait: Callable[[Request], bool] = lambda _: False,
) -> Any:
    def answer(asked: Request, context: Any) -> Message:
        try:
            return method(asked) if deadline is None or may_wait(asked) else deadline.call(method, asked)
        except Exception as error:  # noqa: BLE001 - every failure becomes a status
            return _abort(context, method, error)

    return grpc.unary_unary_rpc_method_handler(answer, request.decode, _encode)


def _list_answered(
    method: Callable[[api.ListSnapshotsRequest], list[api.ListSnapshotsResponse]], deadline: Deadline
) -> Callable[[api.ListSnapshotsRequest, Any], Iterator[Message]]:
    def answer(asked: api.ListSnapshotsRequest, context: Any) -> Iterator[Message]:
        try:
            answers: Sequence[Message] = deadline.call(method, asked)
        except Exception as error:
            _abort(context, method, error)
            raise
        yield from answers

    return answer


def _abort(context: Any, method: Callable[..., Any], error: Exception) -> Message:
    """End the call with the status of the error. Never returns; gRPC unwinds the call by an exception."""
    if isinstance(error, SnapshotError):
        status = error.status
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        status = NoRoomError.status
    else:
        status = "INTERNAL"
        logger.opt(exception=error).error("{method} failed", method=method.__name__)
    context.abort(grpc.StatusCode[status], one_line(str(error)))
    raise error
