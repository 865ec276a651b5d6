"""Index layers concurrently: each is fetched, inflated and hashed once, in a thread of its own.

Inflating and hashing release the interpreter's lock, so that threads use all cores.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from lazylayer.api.oci import Descriptor, Digest, Reference
from lazylayer.errors import BuildError, FormatError, VerificationError
from lazylayer_tarlayers.wholeblob import BlobStream
from lazylayer_tool_index.documents import BUILD_TOOL
from lazylayer_tool_index.finished import FinishedZtocs
from lazylayer_ztoc.encoding import encode_ztoc
from lazylayer_ztoc.layerindexing import NotIndexableError, index_layer

if TYPE_CHECKING:
    from lazylayer.program import Hooks

__all__ = ["LayerWork", "WantedLayer", "ZtocOf"]


class WantedLayer(NamedTuple):
    """A layer to index: where it is, its descriptor, and the digest that its plain tar must have."""

    reference: Reference
    descriptor: Descriptor
    diff_id: Digest


class ZtocOf(NamedTuple):
    """The outcome for one layer: its zTOC, or why it has none."""

    layer: Descriptor
    ztoc: bytes
    reason: str = ""


class LayerWork:
    """Indexes layers. `advance` is called, from any thread, with the number of bytes read."""

    def __init__(self, hooks: Hooks, finished: FinishedZtocs, span_size: int, advance: Callable[[int], None]) -> None:
        self._hooks = hooks
        self._finished = finished
        self._span_size = span_size
        self._advance = advance
        self._stop = threading.Event()

    def run(self, layers: Sequence[WantedLayer], at_once: int) -> Generator[ZtocOf, None, None]:
        """Yield the outcome of each layer, in the order in which they are done. Raises the first error.

        The threads end at the next piece when the iteration ends early.
        """
        waiting: queue.SimpleQueue[WantedLayer] = queue.SimpleQueue()
        done: queue.SimpleQueue[ZtocOf | BaseException] = queue.SimpleQueue()
        # The largest first, so that no core is without work at the end.
        for layer in sorted(layers, key=lambda each: -each.descriptor.size):
            waiting.put(layer)
        for _ in range(min(at_once, len(layers))):
            threading.Thread(target=self._work, args=(waiting, done), name="lazylayer-index", daemon=True).start()
        try:
            for _ in layers:
                outcome = done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
        finally:
            self._stop.set()

    def _work(self, waiting: queue.SimpleQueue[WantedLayer], done: queue.SimpleQueue[ZtocOf | BaseException]) -> None:
        while not self._stop.is_set():
            try:
                layer = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put(self._index(layer))
            except BaseException as error:  # noqa: BLE001 - raised by the thread that waits
                done.put(error)
                return

    def _index(self, wanted: WantedLayer) -> ZtocOf:
        layer = wanted.descriptor
        if (finished := self._finished.find(layer.digest, self._span_size)) is not None:
            self._advance(layer.size)
            return ZtocOf(layer, finished)
        with (
            closing(self._hooks.resolve_blob(wanted.reference, layer)) as source,
            closing(BlobStream(source, layer, self._count)) as stream,
        ):
            try:
                indexed = index_layer(stream, self._span_size, BUILD_TOOL)
                ztoc = encode_ztoc(indexed.ztoc)
            except NotIndexableError as error:
                return ZtocOf(layer, b"", str(error))
            except (FormatError, BuildError) as error:
                raise type(error)(f"layer {layer.digest}: {error}") from error
        if indexed.diff_id != wanted.diff_id:
            raise VerificationError(
                f"layer {layer.digest}: its archive has the digest {indexed.diff_id}, "
                f"but the image config says {wanted.diff_id}; build the image again"
            )
        self._finished.keep(layer.digest, self._span_size, ztoc)
        return ZtocOf(layer, ztoc)

    def _count(self, size: int) -> None:
        """Count bytes that were read, and end the thread if its result is not wanted any more."""
        if self._stop.is_set():
            raise BuildError("interrupted")
        self._advance(size)
