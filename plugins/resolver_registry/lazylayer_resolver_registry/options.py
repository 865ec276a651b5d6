"""The options of this plugin, `[plugin.resolver_registry]`."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["NAME", "Options"]

NAME = "resolver_registry"

_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How registries are spoken to."""

    connect_timeout: _Seconds = 10.0
    """Seconds until a connection must stand."""
    idle_timeout: _Seconds = 30.0
    """Seconds without a byte after which an answer is given up; one that keeps flowing is never cut."""
    attempts: Annotated[int, msgspec.Meta(ge=1)] = 5
    """How often a request is made that fails for reasons that may pass, without any progress in between."""
    connections: Annotated[int, msgspec.Meta(ge=1)] = 64
    """How many connections are open at the same time, to all hosts together."""
    multi_range: bool = True
    """Whether several ranges may be asked for in one request; hosts that cannot are noticed anyway."""
