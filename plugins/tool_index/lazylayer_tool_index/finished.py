"""Keep the zTOCs of layers that are done until their image is, so that an interrupted run goes on from there."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from lazylayer.api.oci import Digest
from lazylayer.errors import BuildError
from lazylayer_newfiles import NewFiles

__all__ = ["FinishedZtocs"]

_DIGEST_SIZE = 32
_VERSION = b"1"
"""Another one for each change of what `lazylayer index` writes."""


class FinishedZtocs:
    """Files in a directory, one for each layer and span size, that begin with a digest. Safe to use from any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._new = NewFiles(str(directory), ".writing-")
        self._used: set[Path] = set()
        with suppress(OSError):
            self._new.sweep()

    def find(self, layer: Digest, span_size: int) -> bytes | None:
        """Return the zTOC of a layer, or None if there is none that is whole."""
        path = self._path(layer, span_size)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, ztoc = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
        if digest != _digest(path, ztoc):
            return None
        self._used.add(path)
        return ztoc

    def keep(self, layer: Digest, span_size: int, ztoc: bytes) -> None:
        """Keep the zTOC of a layer. Raises BuildError."""
        path = self._path(layer, span_size)
        try:
            with self._new.create() as (fd, new):
                with os.fdopen(os.dup(fd), "wb") as file:
                    file.write(_digest(path, ztoc))
                    file.write(ztoc)
                Path(new).replace(path)
        except OSError as error:
            raise BuildError(
                f"{self._directory}: cannot write: {error.strerror}; name another directory with --work"
            ) from error
        self._used.add(path)

    def remove(self) -> None:
        """Remove what this run found or kept: the image is complete."""
        for path in self._used:
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            self._directory.rmdir()

    def _path(self, layer: Digest, span_size: int) -> Path:
        return self._directory / f"{layer.removeprefix('sha256:')}-{span_size}.ztoc"


def _digest(path: Path, ztoc: bytes) -> bytes:
    return hashlib.sha256(b"%s %s\n%s" % (_VERSION, path.name.encode(), ztoc)).digest()
