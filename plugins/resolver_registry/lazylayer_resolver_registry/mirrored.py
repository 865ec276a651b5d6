"""A blob served by several hosts: a read that fails midway continues at the next host."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import closing

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Descriptor
from lazylayer.api.sources import BlobSource
from lazylayer_resolver_registry.ranges import after
from lazylayer_resolver_registry.repository import Repository
from lazylayer_resolver_registry.route import TRY_NEXT, Failures, Route
from lazylayer_resolver_registry.source import RegistryBlob

__all__ = ["MirroredBlob"]


class MirroredBlob(BlobSource):
    """One blob on all hosts of a route. `_lock` guards the sources, one per host."""

    def __init__(self, route: Route, descriptor: Descriptor) -> None:
        self._route = route
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._sources: dict[str, RegistryBlob] = {}
        self._served_by: RegistryBlob | None = None
        self.size = descriptor.size or self._find_size()

    def fetch(self, ranges: Sequence[ByteRange]) -> Generator[tuple[int, bytes], None, None]:
        """Yield the pieces of `ranges`, falling back to the next host on failure. See `BlobSource.fetch`."""
        failures, done = Failures(), ranges[0].start
        for repository in self._route.candidates("pull", self._descriptor.digest):
            try:
                source = self._source(repository)
                with closing(source.fetch(after(ranges, done))) as pieces:
                    for offset, piece in pieces:
                        done = offset + len(piece)
                        self._served_by = source
                        yield offset, piece
                self._route.worked(repository, self._descriptor.digest)
                return
            except TRY_NEXT as error:
                self._route.failed(repository, self._descriptor.digest, error)
                failures.add(repository, error)
        raise failures.last()

    def doubt(self, error: Exception) -> bool:
        """Skip the host that served last, for this blob; ask the next one for its size. See `BlobSource.doubt`."""
        served_by = self._served_by
        subject = self._descriptor.digest
        if served_by is not None:
            self._route.doubted(served_by.repository, subject, error)
            if self._route.candidates("pull", subject)[0] is served_by.repository:
                return False
        if not self._descriptor.size:
            try:
                self.size = self._find_size()
            except TRY_NEXT:
                return False
        return True

    def check(self) -> None:
        """Read one byte from the first host that serves it. See `BlobSource.check`."""
        self._served_by = self._route.first("pull", self._descriptor.digest, self._checked)

    def describe(self) -> str:
        """Return the host that served last, or the registry itself before the first read."""
        return self._served_by.describe() if self._served_by is not None else str(self._route)

    def _find_size(self) -> int:
        self._served_by = self._route.first("pull", self._descriptor.digest, self._source)
        return self._served_by.size

    def _checked(self, repository: Repository) -> RegistryBlob:
        source = self._source(repository)
        source.check()
        return source

    def _source(self, repository: Repository) -> RegistryBlob:
        with self._lock:
            source = self._sources.get(repository.endpoint.url)
        if source is None:
            source = RegistryBlob(repository, self._descriptor)
            with self._lock:
                source = self._sources.setdefault(repository.endpoint.url, source)
        return source
