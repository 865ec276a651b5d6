"""What a snapshotter answers when it cannot: containerd's kinds of errors, each with a gRPC status."""

from __future__ import annotations

from lazylayer.errors import LazylayerError

__all__ = [
    "AlreadyExistsError",
    "FailedPreconditionError",
    "InvalidArgumentError",
    "NotFoundError",
    "SnapshotError",
    "UnavailableError",
]


class SnapshotError(LazylayerError):
    """The root of what the snapshots service answers instead of a result. `status` is a name of gRPC's."""

    status = "UNKNOWN"


class NotFoundError(SnapshotError):
    """There is no such snapshot."""

    status = "NOT_FOUND"


class AlreadyExistsError(SnapshotError):
    """There is one of this name; to a Prepare with a target: it is there and need not be unpacked."""

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
