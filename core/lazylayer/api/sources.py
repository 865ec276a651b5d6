"""What a resolver plugin returns for a blob: where its bytes come from.

The core wraps a `BlobSource` in a `lazylayer.fetching.blob.Blob`, which plans, shares, caches and counts the
requests; a source only carries them out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from lazylayer.api.byteranges import ByteRange

__all__ = ["BlobSource"]


class BlobSource(ABC):
    """Random access to the bytes of one blob.

    All methods may be called from several threads at once.
    """

    size: int
    """Bytes in the blob, as the descriptor promised; the source relies on it for range requests."""

    @abstractmethod
    def fetch(self, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        """Yields the bytes of `ranges` as they arrive, as (offset in the blob, piece).

        The ranges lie inside the blob, are sorted and do not overlap. Within a range pieces come
        in order and without gaps. Pieces outside the ranges must not be yielded. A source may use
        one request for all of them or several; it retries what is worth retrying itself, going on
        where it stopped. Closing the iterator early ends the request.

        Raises AuthenticationError, NotFoundError or UnavailableError; an end before all bytes came
        is an UnavailableError. No call goes on without progress for longer than a few of the source's
        idle time-outs.
        """

    @abstractmethod
    def check(self) -> None:
        """Returns if the blob can be read now, at the cost of at most one small request.

        Raises like `fetch`. A source that holds tokens or redirected addresses renews them here
        when they are refused.
        """

    def doubt(self, error: Exception) -> bool:
        """Hears that what was served last proved to be wrong; `error` says how.

        Returns whether asking again may do better: a source with several places to ask leaves the
        one that served these bytes alone for a while, and says True as long as there is another.
        """
        del error
        return False

    def describe(self) -> str:
        """Where the bytes come from, for people: a host or a path. Holds no secrets and no query."""
        return type(self).__name__

    def close(self) -> None:
        """Gives back connections and files; calls after it are errors."""
