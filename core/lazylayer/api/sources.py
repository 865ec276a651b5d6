"""The type that a resolver plugin returns for a blob: a source of its bytes.

The core plans, shares, caches and counts the requests; a source only makes them.
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
    """Bytes in the blob, as the descriptor promised."""

    @abstractmethod
    def fetch(self, ranges: Sequence[ByteRange]) -> Iterator[tuple[int, bytes]]:
        """Yield the bytes of `ranges` as they arrive, as (offset in the blob, piece).

        The ranges lie inside the blob, are sorted and do not overlap. Within a range, pieces come in order
        and without gaps. Never yield pieces outside the ranges. A source may make one request or several.
        It retries temporary failures itself, and resumes where it stopped. Closing the iterator early ends
        the request.

        Raises AuthenticationError, NotFoundError or UnavailableError, the last also if bytes are missing
        at the end. Without progress, a call ends after a few of the source's idle time-outs.
        """

    @abstractmethod
    def check(self) -> None:
        """Check that the blob can be read now, with at most one small request.

        Raises like `fetch`. If tokens or redirected addresses are rejected, the source renews them.
        """

    def doubt(self, error: Exception) -> bool:
        """Hear that bytes from this source were wrong, and return True if asking again may help.

        A source with several endpoints skips the one that served these bytes for a while, and returns True
        as long as there is another. `error` says what was wrong.
        """
        del error
        return False

    def describe(self) -> str:
        """Return where the bytes come from, for people: a host or a path, without secrets and query."""
        return type(self).__name__

    def close(self) -> None:
        """Release connections and files. Calls afterwards are errors."""
