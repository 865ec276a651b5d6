"""What a resolver plugin returns for a blob: where its bytes come from.

The core wraps a `BlobSource` in a `lazylayer.blob.Blob`, which plans, shares, caches and counts the
requests; a source only carries them out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import msgspec

from lazylayer.extents import Extent

__all__ = ["BlobSource", "Credentials", "Keychain"]


class Credentials(msgspec.Struct, frozen=True):
    """How to authenticate to a registry host.

    Either `username` and `password`, or an `identity_token` (an OAuth refresh token), or a
    `registry_token` (a bearer token, used as it is). `source` names where they were found, for
    messages. Secrets stay out of `repr` and `str`.
    """

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    source: str = ""

    def __repr__(self) -> str:
        kind = "identity token" if self.identity_token else "registry token" if self.registry_token else "password"
        return f"Credentials({kind} from {self.source or 'unknown'})"

    __str__ = __repr__


Keychain = Callable[[str], Credentials | None]
"""Asks the keychain plugins, in configured order, for the credentials of a host (`name[:port]`).

The core hands one to resolvers, bound to the reference at hand. It returns None where no keychain
knows the host, and raises PluginError where one failed. It may be called again at any time, from
any thread; each call asks afresh.
"""


class BlobSource(ABC):
    """Random access to the bytes of one blob.

    All methods may be called from several threads at once.
    """

    size: int
    """Bytes in the blob, as the descriptor promised; the source relies on it for range requests."""

    @abstractmethod
    def fetch(self, extents: Sequence[Extent]) -> Iterator[tuple[int, bytes]]:
        """Yields the bytes of `extents` as they arrive, as (offset in the blob, piece).

        The extents lie inside the blob, are sorted and do not overlap. Within an extent pieces come
        in order and without gaps. Pieces outside the extents must not be yielded. A source may use
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
