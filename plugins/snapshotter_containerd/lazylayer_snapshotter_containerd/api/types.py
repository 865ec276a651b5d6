"""Messages that several services share: `google.protobuf` and `containerd.types`."""

# ruff: noqa: RUF012 - msgspec copies the defaults of structs

from __future__ import annotations

from typing import Annotated, Self

from lazylayer_wire import Message

__all__ = ["Descriptor", "Empty", "FieldMask", "Mount", "Timestamp"]

_NANOSECONDS = 1_000_000_000


class Empty(Message, frozen=True):
    """`google.protobuf.Empty`."""


class Timestamp(Message, frozen=True):
    """`google.protobuf.Timestamp`."""

    seconds: Annotated[int, 1] = 0
    nanos: Annotated[int, 2] = 0

    @classmethod
    def of(cls, nanoseconds: int) -> Self:
        """Return the time that is so many nanoseconds after the epoch."""
        return cls(*divmod(nanoseconds, _NANOSECONDS))


class FieldMask(Message, frozen=True):
    """`google.protobuf.FieldMask`."""

    paths: Annotated[list[str], 1] = []


class Mount(Message, frozen=True):
    """`containerd.types.Mount`: the arguments of mount(8)."""

    type: Annotated[str, 1] = ""
    source: Annotated[str, 2] = ""
    target: Annotated[str, 3] = ""
    options: Annotated[list[str], 4] = []


class Descriptor(Message, frozen=True):
    """`containerd.types.Descriptor`."""

    media_type: Annotated[str, 1] = ""
    digest: Annotated[str, 2] = ""
    size: Annotated[int, 3] = 0
    annotations: Annotated[dict[str, str], 5] = {}
