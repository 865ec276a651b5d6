"""Writing images to a registry.

Source: the OCI distribution specification 1.1, "Pushing blobs in chunks". A chunk that fails is sent
again from where the registry says that it is. Where a registry has forgotten an upload, as after a crash, the
blob is sent once more.
"""

from __future__ import annotations

import hashlib
import re
from typing import IO

import httpx

from lazylayer.api.building import ImageStore
from lazylayer.api.oci import Descriptor, Digest, Reference, sha256_digest
from lazylayer.errors import BuildError, NotFoundError, ResolveError, UnavailableError
from lazylayer_resolver_registry.repository import Repository
from lazylayer_resolver_registry.trail import step
from lazylayer_resolver_registry.transport import Patience, RetryableError, check_status
from lazylayer_resolver_registry.urls import check_target

__all__ = ["RegistryStore"]

_CHUNK = 16 * 1024 * 1024
_UPLOADS = 3
"""How often a blob is sent, from its start, to a registry that forgets its uploads."""
_RECEIVED = re.compile(r"(?:bytes=)?0-(\d{1,18})")


class RegistryStore(ImageStore):
    """One repository, to be written to."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._takers: dict[str, Repository] = {}
        """By which blobs are taken over, for each repository that they come from."""

    def has_blob(self, digest: Digest, size: int) -> bool:
        """See `ImageStore.has_blob`."""
        patience = self._repository.client.patience()
        while True:
            try:
                with self._repository.send("HEAD", self._repository.url(f"blobs/{digest}"), {}) as response:
                    if response.status_code != 200:
                        return False
                    return bool(response.headers.get("Content-Length", str(size)) == str(size))
            except RetryableError as error:
                patience.wait(error)

    def put_blob(self, descriptor: Descriptor, data: IO[bytes]) -> None:
        """See `ImageStore.put_blob`."""
        begin = data.tell() if data.seekable() else None
        for chances in reversed(range(_UPLOADS)):
            try:
                self._upload_blob(descriptor, data)
                return
            except _LostError as error:
                if begin is None or not chances:
                    raise
                step("{error}; it is sent again from its start", error=str(error))
                data.seek(begin)

    def _upload_blob(self, descriptor: Descriptor, data: IO[bytes]) -> None:
        upload = _Upload(self._repository, str(descriptor.digest))
        digest, sent = hashlib.sha256(), 0
        while chunk := _read_chunk(data, min(_CHUNK, descriptor.size - sent + 1)):
            digest.update(chunk)
            if sent + len(chunk) > descriptor.size:
                raise BuildError(f"blob {descriptor.digest} has more than the {descriptor.size} bytes it should have")
            upload.append(sent, chunk)
            sent += len(chunk)
        found = f"sha256:{digest.hexdigest()}"
        if (found, sent) != (descriptor.digest, descriptor.size):
            raise BuildError(
                f"blob {descriptor.digest} of {descriptor.size} bytes turned out to be {found} of {sent} bytes"
            )
        upload.finish()

    def take_blob(self, descriptor: Descriptor, source: Reference) -> bool:
        """See `ImageStore.take_blob`: a mount, from another repository of the same registry."""
        if source.scheme or source.host != self._repository.endpoint.login:
            return False
        # A token of its own: a server that refuses the right to read there must not cost us the one to write here.
        taker = self._takers.setdefault(source.repository, self._repository.reading_from(source.repository))
        url = taker.url("blobs/uploads/")
        url = url.copy_merge_params({"mount": str(descriptor.digest), "from": source.repository})
        try:
            with taker.send("POST", url, {"Content-Length": "0"}) as response:
                if response.status_code != 202:
                    return response.status_code == 201
                started = response.url.join(response.headers.get("Location", ""))
            if self._repository.client.owns(started):  # an upload was begun instead, which we do not want
                with self._repository.send("DELETE", started, {}):
                    pass
        except ResolveError as error:
            step("{digest} cannot be taken over: {error}", digest=descriptor.digest, error=str(error))
        return False

    def put_manifest(self, reference: Reference, media_type: str, data: bytes) -> Descriptor:
        """See `ImageStore.put_manifest`."""
        digest = sha256_digest(data)
        url = self._repository.url(f"manifests/{reference.digest or reference.tag}")
        patience = self._repository.client.patience()
        while True:
            try:
                with self._repository.send("PUT", url, {"Content-Type": media_type}, data) as response:
                    check_status(response, f"{reference}: putting its manifest")
                return Descriptor(media_type, digest, len(data))
            except RetryableError as error:
                patience.wait(error)


def _read_chunk(data: IO[bytes], size: int) -> bytes:
    """The next `size` bytes, fewer only at the end: a stream may give less at a time."""
    chunk = bytearray()
    while len(chunk) < size and (piece := data.read(size - len(chunk))):
        chunk += piece
    return bytes(chunk)


class _LostError(UnavailableError):
    """The registry knows nothing any more of an upload that it began."""


class _Upload:
    """A blob on its way to the registry, a chunk at a time."""

    def __init__(self, repository: Repository, digest: str) -> None:
        self._repository = repository
        self._digest = digest
        self._url: httpx.URL | None = None

    def append(self, offset: int, chunk: bytes) -> None:
        """Sends the bytes from `offset` on; again, from where the registry is, when that fails."""
        patience = self._repository.client.patience()
        end = offset + len(chunk)
        at = offset
        self._start()
        while at < end:
            try:
                self._send(at, chunk[at - offset :])
                return
            except RetryableError as error:
                patience.wait(error)
                at = self._received(patience)
                if not offset <= at <= end:
                    raise self._lost() from error
            except NotFoundError as error:
                raise self._lost() from error

    def finish(self) -> None:
        """Makes the blob visible."""
        patience = self._repository.client.patience()
        while True:
            url = self._start().copy_merge_params({"digest": self._digest})
            try:
                with self._repository.send("PUT", url, {"Content-Length": "0"}) as response:
                    check_status(response, self._what())
                return
            except RetryableError as error:
                patience.wait(error)
            except NotFoundError as error:
                raise self._lost() from error

    def _send(self, at: int, chunk: bytes) -> None:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{at}-{at + len(chunk) - 1}",
            "Content-Length": str(len(chunk)),
        }
        with self._repository.send("PATCH", self._start(), headers, chunk) as response:
            if response.status_code == 416:
                raise RetryableError(f"{self._what()}: the registry is at another byte")
            check_status(response, self._what())
            self._remember(response)

    def _received(self, patience: Patience) -> int:
        """How many bytes the registry has."""
        while True:
            try:
                with self._repository.send("GET", self._start(), {}) as response:
                    check_status(response, self._what())
                    self._remember(response)
                    found = _RECEIVED.fullmatch(response.headers.get("Range", ""))
                    # A registry cannot say "nothing": it says 0-0.
                    return int(found[1]) + 1 if found is not None and found[1] != "0" else 0
            except RetryableError as error:
                patience.wait(error)
            except NotFoundError as error:
                raise self._lost() from error

    def _start(self) -> httpx.URL:
        """Where to send the next chunk; opens the upload the first time."""
        patience = self._repository.client.patience()
        while self._url is None:
            try:
                with self._repository.send(
                    "POST", self._repository.url("blobs/uploads/"), {"Content-Length": "0"}
                ) as response:
                    check_status(response, self._what())
                    self._remember(response)
            except RetryableError as error:
                patience.wait(error)
        return self._url

    def _remember(self, response: httpx.Response) -> None:
        location = response.headers.get("Location", "")
        if location:
            url = response.url.join(location)
            check_target(url, self._repository.root, "an upload")
            self._url = url
        elif self._url is None:
            raise UnavailableError(f"{self._what()}: the registry does not say where to send it")

    def _lost(self) -> _LostError:
        return _LostError(f"{self._what()}: the registry lost what was sent; convert again")

    def _what(self) -> str:
        return f"{self._repository}: uploading {self._digest}"
