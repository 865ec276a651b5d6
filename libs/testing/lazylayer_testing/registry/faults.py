"""Faults on purpose in a scripted registry, and when they happen.

A `Fault` says what is done to an answer, a `Rule` to which requests. A `Gate` holds requests until
the test lets them go, for tests that must not depend on time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lazylayer_testing.registry.recording import RecordedRequest

__all__ = ["Fault", "Gate", "Rule"]


class Gate:
    """Holds what passes through it until it is released. Safe to use from several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held = 0
        self._passes = 0
        self._open = False

    @property
    def held(self) -> int:
        """The number of requests held now."""
        with self._changed:
            return self._held

    def wait_for(self, count: int, seconds: float = 10.0) -> None:
        """Wait until at least `count` requests are held. Raises TimeoutError after `seconds`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._held >= count, seconds):
                raise TimeoutError(f"the gate holds {self._held}, not {count}, after {seconds:g} s")

    def release(self, count: int | None = None) -> None:
        """Release `count` requests, now or when they come; None opens the gate for good."""
        with self._changed:
            if count is None:
                self._open = True
            else:
                self._passes += count
            self._changed.notify_all()

    def hold(self) -> None:
        """Wait until released; called by the registry."""
        with self._changed:
            self._held += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._open or self._passes > 0)
            self._held -= 1
            if not self._open:
                self._passes -= 1


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The damage to one answer; several kinds may be combined.

    Counts of bytes are counts of body bytes.
    """

    status: int | None = None
    """Answer with this status and an error body instead of doing what was asked."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to the answer, replacing headers of the same name."""
    body: bytes | None = None
    """The body, instead of the proper one; `Content-Length` follows it."""
    message: str = "scripted"
    """The message in the error body of `status`."""
    hold: Gate | None = None
    """Hold the request here before it is answered."""
    delay: float = 0.0
    """Seconds to wait before it is answered."""
    ignore_range: bool = False
    """Answer 200 with the whole blob, as servers without range support do."""
    first_range_only: bool = False
    """Answer a request for several ranges with the first one alone."""
    one_covering_range: bool = False
    """Answer a request for several ranges with one part from the first start to the last end."""
    content_range: str | None = None
    """The `Content-Range` header, instead of the right one."""
    without_length: bool = False
    """Send neither `Content-Length` nor chunks; the end of the connection is the end of the body."""
    corrupt_at: int | None = None
    """Invert the byte of the blob at this offset."""
    rewrite: Callable[[bytes], bytes] | None = None
    """Turns the body that would be sent into another one."""
    truncate_after: int | None = None
    """Close the connection in an orderly way after so many bytes, whatever the length promised."""
    reset_after: int | None = None
    """Reset the connection (TCP RST) after so many bytes; -1 resets it before the status line."""
    stall_after: int | None = None
    """Stop sending after so many bytes for `stall_seconds`, or until `stall_until` lets it go on."""
    stall_seconds: float = 0.0
    stall_until: Gate | None = None
    drip: tuple[int, float] | None = None
    """Send pieces of so many bytes with so many seconds between them."""
    drip_head: tuple[int, float] | None = None
    """Send the status line and the headers in such pieces."""


@dataclass
class Rule:
    """A fault and the requests that it befalls.

    `path` is a glob (`*` matches `/` as well) for the path without query, `method` a method or
    empty for all, `when` a further condition. Of the requests that match, `skip` are left alone,
    then `times` get the fault (None: all).
    """

    fault: Fault
    path: str = "*"
    method: str = ""
    when: Callable[[RecordedRequest], bool] | None = None
    skip: int = 0
    times: int | None = 1
    matched: int = 0
    """Number of requests that matched so far."""

    def strikes(self, request: RecordedRequest) -> bool:
        """Return True if this request gets the fault, and count it."""
        if self.method and self.method != request.method:
            return False
        if not fnmatchcase(request.path, self.path) or (self.when is not None and not self.when(request)):
            return False
        self.matched += 1
        number = self.matched - self.skip
        return number >= 1 and (self.times is None or number <= self.times)


def wait(seconds: float, closing: threading.Event) -> None:
    """Wait so long, or until the registry closes."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not closing.wait(left):
        pass
