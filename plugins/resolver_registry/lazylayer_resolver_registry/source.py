"""Random access to a blob in a registry, by HTTP ranges.

A registry often sends readers on to a blob storage, by a URL that is good for a while. That URL is
remembered, so that a range does not pay the registry's hop again, and is resolved again when the
storage refuses it. Credentials stay with the registry.

The lock of this module is `RegistryBlob._lock`, around the remembered URL; nothing is requested while
it is held.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence

import httpx
from loguru import logger

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Descriptor
from lazylayer.api.sources import BlobSource
from lazylayer.errors import UnavailableError
from lazylayer_resolver_registry.ranges import MisplacedBytesError, after, parts, range_header, total_size, wanted
from lazylayer_resolver_registry.repository import Repository, redirect_target
from lazylayer_resolver_registry.trail import step
from lazylayer_resolver_registry.transport import Patience, RetryableError, check_status, finish
from lazylayer_resolver_registry.urls import shown

__all__ = ["RegistryBlob"]

_MAX_RANGES = 64
"""Ranges in one request: many servers refuse headers of more than 4 KiB."""
_MAX_HOPS = 5
_FIRST_BYTE = "bytes=0-0"
_STALE = frozenset({400, 401, 403, 404, 410})
"""What a blob storage answers to a URL whose time is over."""
_NO_MULTI_RANGE = frozenset({400, 416, 501})
_TAIL = 320 * 1024
"""Bytes from the end of a blob of unknown size that are asked for together with its size: a table of
contents lies there, and would cost a round trip of its own."""


class RegistryBlob(BlobSource):
    """One blob of a repository."""

    def __init__(self, repository: Repository, descriptor: Descriptor) -> None:
        self._repository = repository
        self._client = repository.client
        self._digest = descriptor.digest
        self._lock = threading.Lock()
        self._location: httpx.URL | None = None
        self._told_whole = False
        self._tail = b""
        self.size = descriptor.size or self._find_size()

    def fetch(self, ranges: Sequence[ByteRange]) -> Generator[tuple[int, bytes], None, None]:
        """See `BlobSource.fetch`. What fails in the middle is asked for again from there on."""
        tail = self._take_tail(ranges)
        start = self.size - len(tail)
        missing = [ByteRange(each.start, min(each.end, start)) for each in ranges if each.start < start]
        if missing:
            yield from self._fetch(missing, self._client.patience())
        if tail:
            yield start, tail

    def check(self) -> None:
        """See `BlobSource.check`: one byte is read, by the remembered URL or a new one."""
        for _ in self._fetch([ByteRange(0, min(1, self.size))], self._client.patience(attempts=1)):
            pass

    def describe(self) -> str:
        """The registry, and the storage that it sent us to."""
        with self._lock:
            location = self._location
        here = str(self._repository)
        if self._client.endpoint.namespace:
            here += f" for {self._client.endpoint.namespace}"
        return f"{here} (by way of {location.host})" if location is not None else here

    def _fetch(self, remaining: list[ByteRange], patience: Patience) -> Generator[tuple[int, bytes], None, None]:
        while remaining:
            asked = remaining[: 1 if self._must_ask_singly() else _MAX_RANGES]
            done = asked[0].start
            try:
                for offset, piece in self._request(asked):
                    done = offset + len(piece)
                    patience.progress(len(piece))
                    yield offset, piece
                if done != asked[-1].end and any(done == byte_range.end for byte_range in asked):
                    raise MisplacedBytesError(f"{self._what()}: answered some of several ranges")
                if done != asked[-1].end:
                    raise RetryableError(f"{self._what()} ended at byte {done}, before {asked[-1].end}")
            except MisplacedBytesError as error:
                self._ask_singly(str(error), len(asked))
                patience.wait(error)
            except RetryableError as error:
                patience.wait(error)
            remaining = after(remaining, done)

    def _request(self, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        """One request, redirects included. Raises RetryableError when it is worth another."""
        headers = {"Range": range_header(ranges)}
        with self._lock:
            remembered = self._location
        url = remembered or self._blob_url()
        for _ in range(_MAX_HOPS):
            with self._repository.send("GET", url, headers) as response:
                if url is remembered and response.status_code in _STALE:
                    self._forget_location(remembered)
                    url = self._blob_url()
                    continue
                target = redirect_target(response, self._repository.root)
                if target is None:
                    yield from self._body(response, ranges)
                    return
                with self._lock:
                    self._location = url = target
                step("{what} is at {url}", what=self._what(), url=shown(url))
        raise UnavailableError(f"{self._what()}: the registry sends us around in circles")

    def _body(self, response: httpx.Response, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        status = response.status_code
        if status in _NO_MULTI_RANGE and len(ranges) > 1:
            raise MisplacedBytesError(f"{self._what()}: answered {status} to several ranges")
        check_status(response, self._what())
        if status == 200:
            if len(ranges) > 1 and not self._must_ask_singly():
                raise MisplacedBytesError(f"{self._what()}: answered several ranges with the whole")
            self._tell_whole()
        elif status != 206:
            raise UnavailableError(f"{self._what()}: answered {status} to a range")
        size = total_size(response)
        if size is not None and size != self.size:
            raise UnavailableError(f"{self._what()} has {size} bytes there, {self.size} were promised")
        pieces = response.iter_raw()
        yield from wanted(parts(response, pieces), ranges)
        finish(response, pieces)

    def _take_tail(self, ranges: Sequence[ByteRange]) -> bytes:
        """What came with the size of what is asked for, at the end of the blob; once."""
        with self._lock:
            tail, self._tail = self._tail, b""
        if not tail or ranges[-1].end != self.size:
            return b""
        return tail[max(ranges[-1].start - (self.size - len(tail)), 0) :]

    def _find_size(self) -> int:
        """The blob's size, for a caller that knows only the digest."""
        patience = self._client.patience()
        while True:
            try:
                size = self._ask_size()
            except RetryableError as error:
                patience.wait(error)
            else:
                if size is None:
                    raise UnavailableError(f"{self._what()}: the registry does not say how large it is")
                return size

    def _ask_size(self) -> int | None:
        url, asked = self._blob_url(), f"bytes=-{_TAIL}"
        for _ in range(_MAX_HOPS):
            with self._repository.send("GET", url, {"Range": asked}) as response:
                target = redirect_target(response, self._repository.root)
                if target is None and response.status_code in _NO_MULTI_RANGE and asked != _FIRST_BYTE:
                    asked = _FIRST_BYTE  # some storages know no ranges that are counted from the end
                    continue
                if target is None:
                    check_status(response, self._what())
                    size = total_size(response)
                    if size is not None and response.status_code == 206 and asked != _FIRST_BYTE:
                        self._tail = self._read_tail(response, size)
                    return size
                with self._lock:
                    self._location = url = target
        raise UnavailableError(f"{self._what()}: the registry sends us around in circles")

    def _read_tail(self, response: httpx.Response, size: int) -> bytes:
        """The end of the blob; nothing if the answer is another part of it."""
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
        return self._repository.url(f"blobs/{self._digest}")

    def _forget_location(self, stale: httpx.URL) -> None:
        with self._lock:
            if self._location is stale:  # else another reader has found a new one already
                self._location = None

    def _must_ask_singly(self) -> bool:
        transport = self._client.transport
        return not transport.options.multi_range or self._client.endpoint.url in transport.single_range_hosts

    def _ask_singly(self, why: str, ranges: int) -> None:
        url, known = self._client.endpoint.url, self._client.transport.single_range_hosts
        if ranges > 1 and url not in known:
            known.add(url)
            logger.info("{url} is asked for one range at a time from now on: {why}", url=url, why=why)

    def _tell_whole(self) -> None:
        if not self._told_whole:
            self._told_whole = True
            logger.warning(
                "{what}: the server sends the whole blob for a range of it; reads are slow", what=self._what()
            )

    def _what(self) -> str:
        return f"blob {self._digest} of {self._repository}"
