"""How one mount is kept for the next process that mounts the same there."""

from __future__ import annotations

import os
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

    def let_go(self) -> None:
        """Keeps no longer what was kept at the same place before: who waits for a read of it gets an error."""
        taken = self.take()
        if taken is not None:
            self.release(taken[1])

    def release(self, descriptor: int) -> None:
        """Closes a descriptor that was taken, and keeps the mount no longer."""
        if descriptor >= 0:
            os.close(descriptor)
        self.forget()

    def forget(self) -> None:
        """Keeps it no longer."""
        if self.keeping is not None:
            self.keeping.forget(self.target, self._token)
