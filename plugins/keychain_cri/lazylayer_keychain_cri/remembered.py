"""The credentials of pulls, one file per reference, readable by their owner alone.

A file appears, changes and vanishes as a whole, so that processes may share the directory: one proxy
writes, others read. It lies in a directory with mode 0700, has mode 0600 from the start, and is named
by the SHA-256 of its reference, since references are longer than names may be.

The lock is for the writers of this process, and is held over their file operations.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
from pathlib import Path

import msgspec

from lazylayer.api.credentials import Credentials
from lazylayer.api.decoding import decode_json
from lazylayer.api.oci import Reference
from lazylayer.errors import FormatError
from lazylayer_logins.dockerconfig import canonical_host, host_of_key

__all__ = ["Remembered", "RememberedCredentials", "StoreError", "reference_key"]

_MAX_FILE_SIZE = 1024 * 1024
_SUFFIX = ".json"


class StoreError(Exception):
    """A file exists and cannot be read; the message names it."""


def reference_key(reference: Reference) -> str:
    """Return the key of a reference in the store: the full reference, without its tag if it has a digest.

    containerd drops such a tag when it tells snapshotters which image a layer is of.
    """
    return str(msgspec.structs.replace(reference, tag="") if reference.digest else reference)


class Remembered(msgspec.Struct, frozen=True):
    """One pull: its credentials and its image. Secrets stay out of `repr`.

    `server` is the registry that the credentials are for, where kubelet said so. `image` is the ID
    that the image service gave the image, by which kubelet removes it later.
    """

    reference: str
    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""
    image: str = ""

    def __repr__(self) -> str:
        return f"Remembered({self.reference})"

    def credentials(self, source: str) -> Credentials:
        """Return the pull's credentials, as a keychain answers."""
        return Credentials(self.username, self.password, self.identity_token, self.registry_token, source)


class RememberedCredentials:
    """The remembered pulls, in files below `directory`, which is made when it is needed."""

    def __init__(self, directory: Path, max_entries: int = 10_000) -> None:
        self._directory = directory
        self._max_entries = max_entries
        self._lock = threading.Lock()

    def find(self, host: str, reference: Reference) -> Credentials | None:
        """Return the credentials that `reference` was pulled with, if they are for `host`. Raises StoreError."""
        found = self.get(reference_key(reference))
        if found is None or canonical_host(host) != (host_of_key(found.server or reference.host)):
            return None
        return found.credentials("a pull through the CRI")

    def get(self, reference: str) -> Remembered | None:
        """Return the last pull of a reference, or None. Raises StoreError."""
        return self._read(self._path(reference))

    def put(self, entry: Remembered) -> None:
        """Remember a pull, in place of an older one of its reference. Raises OSError."""
        with self._lock:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory.chmod(0o700)
            path = self._path(entry.reference)
            new = path.with_suffix(f".{secrets.token_hex(8)}.new")
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(msgspec.json.encode(entry))
                    file.flush()
                    os.fsync(file.fileno())
                new.rename(path)
            except BaseException:
                new.unlink(missing_ok=True)
                raise
            self._drop_oldest()

    def forget(self, name: str) -> int:
        """Drop the pulls of `name`, a reference or an image ID; return how many there were.

        Raises OSError.
        """
        with self._lock:
            dropped = 0
            for path in self._files():
                entry = None
                with contextlib.suppress(StoreError):
                    entry = self._read(path)
                if entry is not None and name in (entry.reference, entry.image):
                    path.unlink(missing_ok=True)
                    dropped += 1
            return dropped

    def __len__(self) -> int:
        return len(self._files())

    def clear_leftovers(self) -> None:
        """Remove files that a crash left in the middle of a write; for the only writer, when it starts."""
        for path in self._directory.glob("*.new"):
            path.unlink(missing_ok=True)

    def _drop_oldest(self) -> None:
        files = self._files()
        if len(files) > self._max_entries:
            files.sort(key=lambda path: path.stat().st_mtime_ns)
            for path in files[: len(files) - self._max_entries]:
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return list(self._directory.glob(f"*{_SUFFIX}"))

    def _path(self, reference: str) -> Path:
        return self._directory / f"{hashlib.sha256(reference.encode()).hexdigest()}{_SUFFIX}"

    def _read(self, path: Path) -> Remembered | None:
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_FILE_SIZE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
        try:
            return decode_json(data, Remembered)
        except FormatError:
            raise StoreError(f"{path} does not hold the credentials of a pull") from None
