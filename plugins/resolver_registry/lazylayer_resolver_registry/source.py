"""Read ranges of a blob in a registry over HTTP.

A registry often redirects to a blob storage, by a URL that expires. `RegistryBlob` remembers the URL while
it serves, so that each read saves the registry's hop. After any failure there, it forgets the URL and
asks the registry again. Credentials are never sent to the storage.

`RegistryBlob._lock` guards the tail that was fetched with the size. Never hold it during a request.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence

import httpx
from loguru import logger

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Descriptor
from lazylayer.api.sources import BlobSource
from lazylayer.errors import ResolveError, UnavailableError
from lazylayer_resolver_registry.ranges import MisplacedBytesError, after, parts, range_header, total_size, wanted
from lazylayer_resolver_registry.repository import Repository, redirect_target
from lazylayer_resolver_registry.steps import step
from lazylayer_resolver_registry.targets import RedirectTarget
from lazylayer_resolver_registry.transport import Retries, RetryableError, check_status, finish
from lazylayer_resolver_registry.urls import display_url

__all__ = ["RegistryBlob"]

_MAX_RANGES = 64
"""Ranges per request: many servers reject headers of more than 4 KiB."""
_MAX_HOPS = 5
_FIRST_BYTE = "bytes=0-0"

_NO_MULTI_RANGE = frozenset({400, 416, 501})
_TAIL = 320 * 1024
"""Bytes from the end of a blob of unknown size, requested together with its size: they hold the table of
contents, which would cost a round trip of its own."""


class RegistryBlob(BlobSource):
    """One blob of a repository."""

    def __init__(self, repository: Repository, descriptor: Descriptor) -> None:
        self.repository = repository
        self._client = repository.client
        self._digest = descriptor.digest
        self._lock = threading.Lock()
        self._target = RedirectTarget()
        self._warned_whole_blob = False
        self._tail = b""
        self.size = descriptor.size or self._find_size()

    def fetch(self, ranges: Sequence[ByteRange]) -> Generator[tuple[int, bytes], None, None]:
        """Yield the pieces of `ranges`; after a temporary failure, continue there. See `BlobSource.fetch`."""
        tail = self._take_tail(ranges)
        start = self.size - len(tail)
        missing = [ByteRange(each.start, min(each.end, start)) for each in ranges if each.start < start]
        if missing:
            yield from self._fetch(missing, self._client.retries())
        if tail:
            yield start, tail

    def check(self) -> None:
        """Read one byte, by the remembered URL or a new one. See `BlobSource.check`."""
        for _ in self._fetch([ByteRange(0, min(1, self.size))], self._client.retries(attempts=1)):
            pass

    def doubt(self, error: Exception) -> bool:
        """Forget the storage that served wrong bytes, and return False. See `BlobSource.doubt`."""
        self._target.forget()
        return super().doubt(error)

    def describe(self) -> str:
        """Return the registry, and the storage it redirects to, for messages."""
        location = self._target.url
        here = str(self.repository)
        if self._client.endpoint.namespace:
            here += f" for {self._client.endpoint.namespace}"
        return f"{here} (via {location.host})" if location is not None else here

    def _fetch(self, remaining: list[ByteRange], retries: Retries) -> Generator[tuple[int, bytes], None, None]:
        while remaining:
            asked = remaining[: 1 if self._single_range() else _MAX_RANGES]
            done = asked[0].start
            try:
                for offset, piece in self._request(asked):
                    done = offset + len(piece)
                    retries.progress(len(piece))
                    yield offset, piece
            except MisplacedBytesError as error:
                self._disable_multi_range(str(error), len(asked))
                retries.wait(error)
            except RetryableError as error:
                retries.wait(error)
            remaining = after(remaining, done)

    def _request(self, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        """Request ranges of the remembered target, or of the registry if there is none or it fails.

        Raises RetryableError for temporary failures.
        """
        remembered, served = self._target.url, False
        if remembered is not None:
            try:
                for piece in self._follow(remembered, ranges):
                    served = True
                    yield piece
                return
            except ResolveError as error:
                if served:
                    raise
                step("{what}: {error}; asking the registry again", what=self._what(), error=str(error))
        yield from self._follow(self._blob_url(), ranges)

    def _follow(self, url: httpx.URL, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        """Send a request and follow its redirects; remember the target while it serves."""
        headers = {"Range": range_header(ranges)}
        for _ in range(_MAX_HOPS):
            try:
                with self.repository.send("GET", url, headers) as response:
                    target = redirect_target(response, self.repository.root)
                    if target is None:
                        self._check(response, ranges)
                        self._remember(url)
                        yield from self._body(response, ranges)
                        return
            except ResolveError:
                self._target.forget(url)
                raise
            url = target
        raise UnavailableError(f"{self._what()}: redirect loop: more than {_MAX_HOPS} hops")

    def _remember(self, url: httpx.URL) -> None:
        if url not in (self._blob_url(), self._target.url):
            self._target.keep(url)
            step("{what} is at {url}", what=self._what(), url=display_url(url))

    def _check(self, response: httpx.Response, ranges: Sequence[ByteRange]) -> None:
        """Raise unless the response has the requested ranges of a blob of the expected size."""
        status = response.status_code
        if status in _NO_MULTI_RANGE and len(ranges) > 1:
            raise MisplacedBytesError(f"{self._what()}: status {status} for several ranges")
        check_status(response, self._what())
        if status == 200:
            if len(ranges) > 1 and not self._single_range():
                raise MisplacedBytesError(f"{self._what()}: the whole blob was sent for several ranges")
            self._warn_whole_blob()
        elif status != 206:
            raise UnavailableError(f"{self._what()}: unexpected status {status} for a range")
        size = total_size(response)
        if size is not None and size != self.size:
            raise UnavailableError(f"{self._what()}: has {size} bytes there, expected {self.size}")

    def _body(self, response: httpx.Response, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        """Yield the pieces of `ranges`. Raises RetryableError if some are missing."""
        pieces, done = response.iter_raw(), ranges[0].start
        for offset, piece in wanted(parts(response, pieces), ranges):
            done = offset + len(piece)
            yield offset, piece
        if done != ranges[-1].end and any(done == each.end for each in ranges):
            raise MisplacedBytesError(f"{self._what()}: only some of the requested ranges were sent")
        if done != ranges[-1].end:
            raise RetryableError(f"{self._what()}: the body ended at byte {done}, before {ranges[-1].end}")
        finish(response, pieces)

    def _take_tail(self, ranges: Sequence[ByteRange]) -> bytes:
        """Return the bytes of `ranges` that were fetched together with the size; once."""
        with self._lock:
            tail, self._tail = self._tail, b""
        if not tail or ranges[-1].end != self.size:
            return b""
        return tail[max(ranges[-1].start - (self.size - len(tail)), 0) :]

    def _find_size(self) -> int:
        """Ask the registry for the blob's size, which the descriptor lacks."""
        retries = self._client.retries()
        while True:
            try:
                size = self._ask_size()
            except RetryableError as error:
                retries.wait(error)
            else:
                if size is None:
                    raise UnavailableError(f"{self._what()}: the registry sends no size")
                return size

    def _ask_size(self) -> int | None:
        url, asked = self._blob_url(), f"bytes=-{_TAIL}"
        for _ in range(_MAX_HOPS):
            with self.repository.send("GET", url, {"Range": asked}) as response:
                target = redirect_target(response, self.repository.root)
                if target is None and response.status_code in _NO_MULTI_RANGE and asked != _FIRST_BYTE:
                    asked = _FIRST_BYTE  # some storages do not support suffix ranges
                    continue
                if target is None:
                    check_status(response, self._what())
                    size = total_size(response)
                    if size is not None and response.status_code == 206 and asked != _FIRST_BYTE:
                        self._tail = self._read_tail(response, size)
                    self._remember(url)
                    return size
                url = target
        raise UnavailableError(f"{self._what()}: redirect loop: more than {_MAX_HOPS} hops")

    def _read_tail(self, response: httpx.Response, size: int) -> bytes:
        """Return the end of the blob, or b"" if the response holds another part of it."""
        start = max(size - _TAIL, 0)
        pieces = response.iter_raw()
        try:
            placed = wanted(parts(response, pieces), [ByteRange(start, size)])
            tail = b"".join(piece for _, piece in placed)
        except MisplacedBytesError:
            return b""
        finish(response, pieces)
        return tail if len(tail) == size - start else b""

    def _blob_url(self) -> httpx.URL:
        return self.repository.url(f"blobs/{self._digest}")

    def _single_range(self) -> bool:
        transport = self._client.transport
        return not transport.options.multi_range or self._client.endpoint.url in transport.single_range_hosts

    def _disable_multi_range(self, why: str, ranges: int) -> None:
        url, known = self._client.endpoint.url, self._client.transport.single_range_hosts
        if ranges > 1 and url not in known:
            known.add(url)
            logger.info("{url}: requesting one range at a time from now on: {why}", url=url, why=why)

    def _warn_whole_blob(self) -> None:
        if not self._warned_whole_blob:
            self._warned_whole_blob = True
            logger.warning(
                "{what}: the server ignores ranges and sends the whole blob; reads are slow", what=self._what()
            )

    def _what(self) -> str:
        return f"blob {self._digest} of {self.repository}"
