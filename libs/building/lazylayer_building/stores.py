"""Ask plugins for a place to write images to."""

from __future__ import annotations

from typing import Any, Protocol

from lazylayer.api.credentials import Keychain
from lazylayer.api.oci import Reference
from lazylayer.errors import BuildError
from lazylayer_building import ImageStore

__all__ = ["open_store"]


class _Hooks(Protocol):
    """The part of `lazylayer.program.Hooks` that is needed here; libraries do not import programs."""

    def first(self, hook: str, **arguments: object) -> Any: ...

    def keychain(self, reference: Reference) -> Keychain: ...

    def why_unanswered(self, reference: Reference, hook: str) -> str: ...


def open_store(hooks: _Hooks, reference: Reference) -> ImageStore:
    """Open the place to write an image to. Raises BuildError if no plugin writes to such places."""
    hook = "lazylayer_open_store"
    store: ImageStore | None = hooks.first(hook, reference=reference, keychain=hooks.keychain(reference))
    if store is None:
        raise BuildError(hooks.why_unanswered(reference, hook))
    return store
