"""`containerd.services.snapshots.v1`: what we serve."""

# ruff: noqa: RUF012 - msgspec copies the defaults of structs

from __future__ import annotations

from typing import Annotated

from lazylayer_snapshotter_containerd.api.types import FieldMask, Mount, Timestamp
from lazylayer_wire import Message

__all__ = [
    "SERVICE",
    "CleanupRequest",
    "CommitSnapshotRequest",
    "Info",
    "ListSnapshotsRequest",
    "ListSnapshotsResponse",
    "MountsRequest",
    "MountsResponse",
    "PrepareSnapshotRequest",
    "RemoveSnapshotRequest",
    "StatSnapshotRequest",
    "StatSnapshotResponse",
    "UpdateSnapshotRequest",
    "UsageRequest",
    "UsageResponse",
]

SERVICE = "containerd.services.snapshots.v1.Snapshots"


class PrepareSnapshotRequest(Message, frozen=True):
    """Of Prepare and, under the name ViewSnapshotRequest, of View."""

    snapshotter: Annotated[str, 1] = ""
    key: Annotated[str, 2] = ""
    parent: Annotated[str, 3] = ""
    labels: Annotated[dict[str, str], 4] = {}


class MountsRequest(Message, frozen=True):
    """Of Mounts."""

    snapshotter: Annotated[str, 1] = ""
    key: Annotated[str, 2] = ""


class MountsResponse(Message, frozen=True):
    """The answer to Prepare, View and Mounts; containerd has a name for each."""

    mounts: Annotated[list[Mount], 1] = []


class RemoveSnapshotRequest(Message, frozen=True):
    """Of Remove."""

    snapshotter: Annotated[str, 1] = ""
    key: Annotated[str, 2] = ""


class CommitSnapshotRequest(Message, frozen=True):
    """Of Commit."""

    snapshotter: Annotated[str, 1] = ""
    name: Annotated[str, 2] = ""
    key: Annotated[str, 3] = ""
    labels: Annotated[dict[str, str], 4] = {}
    parent: Annotated[str, 5] = ""


class StatSnapshotRequest(Message, frozen=True):
    """Of Stat."""

    snapshotter: Annotated[str, 1] = ""
    key: Annotated[str, 2] = ""


class Info(Message, frozen=True):
    """A snapshot, as it is known. `kind`: 1 view, 2 active, 3 committed."""

    name: Annotated[str, 1] = ""
    parent: Annotated[str, 2] = ""
    kind: Annotated[int, 3] = 0
    created_at: Annotated[Timestamp | None, 4] = None
    updated_at: Annotated[Timestamp | None, 5] = None
    labels: Annotated[dict[str, str], 6] = {}


class StatSnapshotResponse(Message, frozen=True):
    """The answer to Stat and, under the name UpdateSnapshotResponse, to Update."""

    info: Annotated[Info | None, 1] = None


class UpdateSnapshotRequest(Message, frozen=True):
    """Of Update."""

    snapshotter: Annotated[str, 1] = ""
    info: Annotated[Info | None, 2] = None
    update_mask: Annotated[FieldMask | None, 3] = None


class ListSnapshotsRequest(Message, frozen=True):
    """Of List."""

    snapshotter: Annotated[str, 1] = ""
    filters: Annotated[list[str], 2] = []


class ListSnapshotsResponse(Message, frozen=True):
    """One of the answers to List."""

    info: Annotated[list[Info], 1] = []


class UsageRequest(Message, frozen=True):
    """Of Usage."""

    snapshotter: Annotated[str, 1] = ""
    key: Annotated[str, 2] = ""


class UsageResponse(Message, frozen=True):
    """The answer to Usage; `size` in bytes."""

    size: Annotated[int, 1] = 0
    inodes: Annotated[int, 2] = 0


class CleanupRequest(Message, frozen=True):
    """Of Cleanup."""

    snapshotter: Annotated[str, 1] = ""
