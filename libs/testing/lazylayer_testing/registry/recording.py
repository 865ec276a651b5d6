"""The requests that a scripted registry saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["RecordedRequest"]


@dataclass
class RecordedRequest:
    """One request, filled in while it is answered.

    `query` joins the values of a name that comes several times with spaces. `headers` has lower-case
    names; `range` is the `Range` header or None. `concurrency` is how many requests were under way
    when this one came, itself included. `status` is 0 until it is answered and stays 0 if the
    connection was reset before. `sent` counts body bytes given to the network, of which a client that
    went away may have read fewer. Times are `time.monotonic()` seconds.
    """

    number: int
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    concurrency: int
    started: float
    status: int = 0
    sent: int = 0
    finished: float = 0.0

    @property
    def range(self) -> str | None:
        """The `Range` header, or None."""
        return self.headers.get("range")

    @property
    def kind(self) -> str:
        """`blob`, `manifest`, `upload`, `tags`, `storage` (a redirected blob), `token`, or `other`."""
        if self.path.startswith("/storage/"):
            return "storage"
        if self.path == "/token":
            return "token"
        for part, kind in (("/blobs/uploads/", "upload"), ("/blobs/", "blob"), ("/manifests/", "manifest")):
            if part in self.path:
                return kind
        return "tags" if self.path.endswith("/tags/list") else "other"

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The ranges as half-open (start, end) pairs; those without both ends are left out."""
        pairs = []
        for each in (self.range or "").removeprefix("bytes=").split(","):
            first, _, last = each.strip().partition("-")
            if first.isdigit() and last.isdigit():
                pairs.append((int(first), int(last) + 1))
        return pairs
