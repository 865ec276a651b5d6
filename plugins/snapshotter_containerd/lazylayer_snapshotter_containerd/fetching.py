"""Fetch whole layers concurrently: several at once, and a large one by several ranges at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import closing

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.oci import Descriptor, Digest, Reference
from lazylayer.api.sources import BlobSource
from lazylayer.errors import LazylayerError
from lazylayer.program import Hooks
from lazylayer_snapshotter_containerd.background import run_in_background

__all__ = ["BlobFetches"]

_LAYERS_AT_ONCE = 3
"""As many as containerd fetches at once."""
_RANGES_AT_ONCE = 4
_RANGE = 4 * 1024 * 1024
"""Bytes of one request. Those of the requests under way, and no more, are held in memory."""
_PIECE = 1024 * 1024
"""Bytes that are handed on at once: a message to containerd has at most 4 MiB."""

_LOOK_AGAIN = 0.25
"""Seconds between two looks whether the client that waits for the layers is still there."""

Write = Callable[[Iterator[bytes]], object]
"""Stores a blob, which comes in order; checks its digest."""


class _StoppedError(LazylayerError):
    """The pull that wanted the layers has ended."""


class BlobFetches:
    """The layers of an image that are fetched as a whole. Safe to use from any thread.

    :param is_cancelled: returns True when the layers are not wanted any more.
    """

    def __init__(self, hooks: Hooks, reference: Reference, is_cancelled: Callable[[], bool]) -> None:
        self._hooks = hooks
        self._reference = reference
        self._is_cancelled = is_cancelled
        self._slots = threading.Semaphore(_LAYERS_AT_ONCE)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._begun: dict[Digest, Future[None]] = {}

    def begin(self, layer: Descriptor, write: Write) -> Future[None]:
        """Begin to fetch a layer and to store it, unless that was begun already."""
        with self._lock:
            future = self._begun.get(layer.digest)
            if future is None:
                future = run_in_background(lambda: self._fetch(layer, write), f"lazylayer-fetch-{layer.digest[7:15]}")
                self._begun[layer.digest] = future
        return future

    def wait(self, fetch: Future[None]) -> None:
        """Wait until a layer is stored, or until none is wanted any more. Raises what fetching raised."""
        while not fetch.done():
            self._go_on()
            wait([fetch], _LOOK_AGAIN)
        fetch.result()

    def close(self) -> None:
        """Stop what is under way."""
        self._closed.set()

    def _fetch(self, layer: Descriptor, write: Write) -> None:
        with self._slots:
            self._go_on()
            with closing(self._hooks.resolve_blob(self._reference, layer)) as source:
                write(self._pieces(source, layer.size))

    def _pieces(self, source: BlobSource, size: int) -> Iterator[bytes]:
        """Yield a blob in order, while the ranges behind are on their way."""
        ranges = deque(ByteRange(start, min(start + _RANGE, size)) for start in range(0, size, _RANGE))
        under_way: deque[Future[bytes]] = deque()
        while ranges or under_way:
            while ranges and len(under_way) < _RANGES_AT_ONCE:
                under_way.append(self._read(source, ranges.popleft()))
            data = memoryview(under_way.popleft().result())
            for start in range(0, len(data), _PIECE):
                self._go_on()
                yield bytes(data[start : start + _PIECE])

    def _read(self, source: BlobSource, wanted: ByteRange) -> Future[bytes]:
        def read() -> bytes:
            data = bytearray()
            for _, piece in source.fetch([wanted]):
                self._go_on()
                data += piece
            return bytes(data)

        return run_in_background(read, "lazylayer-fetch")

    def _go_on(self) -> None:
        if self._closed.is_set() or self._is_cancelled():
            raise _StoppedError("the pull has ended")
