"""The errors that a snapshotter answers with: containerd's kinds, each with a gRPC status."""

from __future__ import annotations

from lazylayer.errors import LazylayerError

__all__ = [
    "AlreadyExistsError",
    "FailedPreconditionError",
    "InvalidArgumentError",
    "NoRoomError",
    "NotFoundError",
    "SnapshotError",
    "UnavailableError",
]


class SnapshotError(LazylayerError):
    """The root of the errors that the snapshots service answers with. `status` is the name of a gRPC status."""

    status = "UNKNOWN"


class NotFoundError(SnapshotError):
    """The snapshot does not exist."""

    status = "NOT_FOUND"


class AlreadyExistsError(SnapshotError):
    """The name is taken; as an answer to a Prepare with a target: the layer is there and need not be unpacked."""

    status = "ALREADY_EXISTS"


class FailedPreconditionError(SnapshotError):
    """The snapshot is not in the state that the call needs."""

    status = "FAILED_PRECONDITION"


class InvalidArgumentError(SnapshotError):
    """The call makes no sense."""

    status = "INVALID_ARGUMENT"


class UnavailableError(SnapshotError):
    """A layer cannot be read now; later it may."""

    status = "UNAVAILABLE"


class NoRoomError(SnapshotError):
    """The disk is full."""

    status = "RESOURCE_EXHAUSTED"
