"""How one mount is kept for the next process that mounts the same there."""

from __future__ import annotations

import secrets

from lazylayer_frontend_erofs.keeping import Keeping, Note

__all__ = ["Kept"]


class Kept:
    """How one mount is kept; without `keeping` it is not."""

    def __init__(self, keeping: Keeping | None, target: str) -> None:
        self.keeping = keeping
        self.target = target
        self._token = secrets.token_hex(8)

    def hold(self, device: str, image: str, descriptor: int) -> None:
        """Keeps the mount."""
        if self.keeping is not None:
            self.keeping.hold(self.target, Note(self.target, device, image, self._token), descriptor)

    def take(self) -> tuple[Note, int] | None:
        """What was kept at the same place before; it is this mount from now on."""
        taken = self.keeping.take(self.target) if self.keeping is not None else None
        if taken is not None:
            self._token = taken[0].token
        return taken

    def forget(self) -> None:
        """Keeps it no longer."""
        if self.keeping is not None:
            self.keeping.forget(self.target, self._token)
