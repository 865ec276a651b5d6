"""Write images to a registry.

Source: the OCI distribution specification 1.1, "Pushing blobs in chunks". A failed chunk resumes at the
registry's offset. If the registry lost the upload, for example in a crash, the blob is sent again.
"""

from __future__ import annotations

import hashlib
import re
from typing import IO

import httpx

from lazylayer.api.oci import Descriptor, Digest, Reference, sha256_digest
from lazylayer.errors import BuildError, NotFoundError, ResolveError, UnavailableError
from lazylayer_building import ImageStore
from lazylayer_resolver_registry.repository import Repository
from lazylayer_resolver_registry.steps import step
from lazylayer_resolver_registry.transport import Retries, RetryableError, check_status
from lazylayer_resolver_registry.urls import check_target

__all__ = ["RegistryStore"]

_CHUNK = 16 * 1024 * 1024
_UPLOADS = 3
"""Attempts to send a blob from its start to a registry that loses uploads."""
_RECEIVED = re.compile(r"(?:bytes=)?0-(\d{1,18})")


class RegistryStore(ImageStore):
    """One repository, opened for writing."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._takers: dict[str, Repository] = {}
        """Clients for cross-repository mounts, by source repository."""

    def has_blob(self, digest: Digest, size: int) -> bool:
        """Ask the registry for the blob with HEAD. See `ImageStore.has_blob`."""
        retries = self._repository.client.retries()
        while True:
            try:
                with self._repository.send("HEAD", self._repository.url(f"blobs/{digest}"), {}) as response:
                    if response.status_code != 200:
                        return False
                    return bool(response.headers.get("Content-Length", str(size)) == str(size))
            except RetryableError as error:
                retries.wait(error)

    def put_blob(self, descriptor: Descriptor, data: IO[bytes]) -> None:
        """Upload a blob in chunks. See `ImageStore.put_blob`."""
        begin = data.tell() if data.seekable() else None
        for chances in reversed(range(_UPLOADS)):
            try:
                self._upload_blob(descriptor, data)
                return
            except _LostError as error:
                if begin is None or not chances:
                    raise
                step("{error}; sending the blob again from its start", error=str(error))
                data.seek(begin)

    def _upload_blob(self, descriptor: Descriptor, data: IO[bytes]) -> None:
        upload = _Upload(self._repository, str(descriptor.digest))
        digest, sent = hashlib.sha256(), 0
        while chunk := _read_chunk(data, min(_CHUNK, descriptor.size - sent + 1)):
            digest.update(chunk)
            if sent + len(chunk) > descriptor.size:
                raise BuildError(f"blob {descriptor.digest}: more than the expected {descriptor.size} bytes")
            upload.append(sent, chunk)
            sent += len(chunk)
        found = f"sha256:{digest.hexdigest()}"
        if (found, sent) != (descriptor.digest, descriptor.size):
            raise BuildError(f"blob {descriptor.digest}: expected {descriptor.size} bytes, got {found} of {sent} bytes")
        upload.finish()

    def take_blob(self, descriptor: Descriptor, source: Reference) -> bool:
        """Mount a blob from another repository of the same registry. See `ImageStore.take_blob`."""
        if source.scheme or source.host != self._repository.endpoint.login:
            return False
        # A token of its own: if the server refuses to grant reading there, writing here must still work.
        taker = self._takers.setdefault(source.repository, self._repository.reading_from(source.repository))
        url = taker.url("blobs/uploads/")
        url = url.copy_merge_params({"mount": str(descriptor.digest), "from": source.repository})
        try:
            with taker.send("POST", url, {"Content-Length": "0"}) as response:
                if response.status_code != 202:
                    return response.status_code == 201
                started = response.url.join(response.headers.get("Location", ""))
            if self._repository.client.owns(started):  # the registry began an upload instead; cancel it
                with self._repository.send("DELETE", started, {}):
                    pass
        except ResolveError as error:
            step("{digest}: not mounted from another repository: {error}", digest=descriptor.digest, error=str(error))
        return False

    def put_manifest(self, reference: Reference, media_type: str, data: bytes) -> Descriptor:
        """Upload a manifest. See `ImageStore.put_manifest`."""
        digest = sha256_digest(data)
        url = self._repository.url(f"manifests/{reference.digest or reference.tag}")
        retries = self._repository.client.retries()
        while True:
            try:
                with self._repository.send("PUT", url, {"Content-Type": media_type}, data) as response:
                    check_status(response, f"{reference}: uploading the manifest")
                return Descriptor(media_type, digest, len(data))
            except RetryableError as error:
                retries.wait(error)


def _read_chunk(data: IO[bytes], size: int) -> bytes:
    """Return the next `size` bytes, fewer only at the end of the stream."""
    chunk = bytearray()
    while len(chunk) < size and (piece := data.read(size - len(chunk))):
        chunk += piece
    return bytes(chunk)


class _LostError(UnavailableError):
    """The registry lost an upload."""


class _Upload:
    """An upload of one blob, chunk by chunk."""

    def __init__(self, repository: Repository, digest: str) -> None:
        self._repository = repository
        self._digest = digest
        self._url: httpx.URL | None = None

    def append(self, offset: int, chunk: bytes) -> None:
        """Send the bytes from `offset` on; after a temporary failure, resume at the registry's offset."""
        retries = self._repository.client.retries()
        end = offset + len(chunk)
        at = offset
        self._start()
        while at < end:
            try:
                self._send(at, chunk[at - offset :])
                return
            except RetryableError as error:
                retries.wait(error)
                at = self._received(retries)
                if not offset <= at <= end:
                    raise self._lost() from error
            except NotFoundError as error:
                raise self._lost() from error

    def finish(self) -> None:
        """Complete the upload, which makes the blob visible."""
        retries = self._repository.client.retries()
        while True:
            url = self._start().copy_merge_params({"digest": self._digest})
            try:
                with self._repository.send("PUT", url, {"Content-Length": "0"}) as response:
                    check_status(response, self._what())
                return
            except RetryableError as error:
                retries.wait(error)
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
                raise RetryableError(f"{self._what()}: the registry expects another offset")
            check_status(response, self._what())
            self._remember(response)

    def _received(self, retries: Retries) -> int:
        """Ask the registry how many bytes it has received."""
        while True:
            try:
                with self._repository.send("GET", self._start(), {}) as response:
                    check_status(response, self._what())
                    self._remember(response)
                    found = _RECEIVED.fullmatch(response.headers.get("Range", ""))
                    # The range of no bytes cannot be expressed: registries send 0-0.
                    return int(found[1]) + 1 if found is not None and found[1] != "0" else 0
            except RetryableError as error:
                retries.wait(error)
            except NotFoundError as error:
                raise self._lost() from error

    def _start(self) -> httpx.URL:
        """Return the URL for the next chunk; open the upload on the first call."""
        retries = self._repository.client.retries()
        while self._url is None:
            try:
                with self._repository.send(
                    "POST", self._repository.url("blobs/uploads/"), {"Content-Length": "0"}
                ) as response:
                    check_status(response, self._what())
                    self._remember(response)
            except RetryableError as error:
                retries.wait(error)
        return self._url

    def _remember(self, response: httpx.Response) -> None:
        location = response.headers.get("Location", "")
        if location:
            url = response.url.join(location)
            check_target(url, self._repository.root, "an upload")
            self._url = url
        elif self._url is None:
            raise UnavailableError(f"{self._what()}: the registry sent no Location header")

    def _lost(self) -> _LostError:
        return _LostError(f"{self._what()}: the registry lost the upload; convert again")

    def _what(self) -> str:
        return f"{self._repository}: uploading {self._digest}"
