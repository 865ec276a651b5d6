"""The options of the CRI keychain, and the store that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from lazylayer.api.settings import Settings
from lazylayer_keychain_cri.remembered import RememberedCredentials

__all__ = ["Options", "open_store"]

NAME = "keychain_cri"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugin.keychain_cri]`; `listen` turns the plugin on."""

    listen: str = ""
    """The socket of the proxy; kubelet's `--image-service-endpoint` names it."""
    backend: str = "/run/containerd/containerd.sock"
    """The socket of the real image service."""
    max_entries: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    """References to remember; the oldest are dropped."""


def open_store(settings: Settings, options: Options) -> RememberedCredentials:
    """Return the store that the proxy and the keychain of these settings share."""
    return RememberedCredentials(Path(settings.root) / NAME, options.max_entries)
