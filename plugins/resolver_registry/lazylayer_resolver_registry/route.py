"""The ways to one repository: its mirrors in order, then the registry itself.

A place that fails is passed over for a while. One that cannot be reached is passed over for everything;
one that lacks something, or refuses us, only for that. When all have failed, all are asked again.

The lock of this module is `Resting._lock`; nothing is requested while it is held.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from lazylayer.errors import LayerError, LazylayerError, ResolveError, UnavailableError
from lazylayer_resolver_registry.endpoints import Capability
from lazylayer_resolver_registry.repository import Repository
from lazylayer_resolver_registry.trail import step

__all__ = ["PASSED_OVER", "Failures", "Resting", "Route"]

Answer = TypeVar("Answer")

PASSED_OVER = (ResolveError, LayerError)
"""Failures of one place after which the next one is asked. Others, of keychains for one, are told at once."""
_MOST_KEPT = 10_000
_LONGEST_REST = 600.0
"""Seconds."""


class Resting:
    """What failed lately, and until when it is passed over. Safe to use from any thread.

    :param seconds: for how long; twice as long each time that it fails again, up to ten minutes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._failed: dict[str, _Rest] = {}
        self._lock = threading.Lock()

    def rest(self, key: str) -> float:
        """Passes `key` over from now on, and says for how many seconds."""
        now = time.monotonic()
        with self._lock:
            if len(self._failed) >= _MOST_KEPT:
                self._failed = {key: rest for key, rest in self._failed.items() if rest.until > now}
            before = self._failed.get(key)
            seconds = self._seconds if before is None else min(2 * before.seconds, max(_LONGEST_REST, self._seconds))
            self._failed[key] = _Rest(now + seconds, seconds)
        return seconds

    def rests(self, key: str) -> bool:
        """Whether `key` is passed over now."""
        if not self._failed:  # the rule, and this is asked for every request
            return False
        with self._lock:
            rest = self._failed.get(key)
        return rest is not None and rest.until > time.monotonic()

    def recovered(self, *keys: str) -> None:
        """Forgets that these failed."""
        if not self._failed:
            return
        with self._lock:
            for key in keys:
                self._failed.pop(key, None)


class _Rest(NamedTuple):
    until: float
    seconds: float


class Failures:
    """What went wrong on the way, so that the last error can tell of all. Used by one thread."""

    def __init__(self) -> None:
        self._found: list[tuple[Repository, LazylayerError]] = []

    def add(self, repository: Repository, error: LazylayerError) -> None:
        """Remembers an error."""
        self._found.append((repository, error))

    def last(self) -> LazylayerError:
        """The error to raise: that of the registry itself, or of the last place, with the others told."""
        decisive = next((each for each in self._found if not each[0].endpoint.mirror), self._found[-1])
        others = [f"{repository}: {error}" for repository, error in self._found if repository is not decisive[0]]
        if not others:
            return decisive[1]
        told = f"{decisive[1]}; before that, {'; '.join(others)}"
        error = type(decisive[1])(told) if isinstance(decisive[1], PASSED_OVER) else UnavailableError(told)
        error.__cause__ = decisive[1]
        return error


class Route:
    """All places that serve one repository. Safe to use from any thread."""

    def __init__(self, repositories: Sequence[Repository], resting: Resting) -> None:
        self._repositories = repositories
        self._resting = resting

    def __str__(self) -> str:
        """For messages: the registry itself."""
        return str(self._repositories[-1])

    def places(self, capability: Capability, subject: str = "") -> list[Repository]:
        """Those that may be asked, the ones to be asked first at the start.

        :param subject: what it is about, a digest for one. Raises UnavailableError if there are none.
        """
        able = [each for each in self._repositories if capability in each.endpoint.capabilities]
        if not able:
            raise UnavailableError(
                f"{self}: neither it nor a mirror may be asked to {capability}; see [[resolver.hosts]]"
            )
        if len(able) == 1:
            return able
        return sorted(able, key=lambda each: self._rests(each, subject))

    def first(self, capability: Capability, subject: str, ask: Callable[[Repository], Answer]) -> Answer:
        """The answer of the first place that has one. Raises what the registry itself, or the last, raised."""
        failures = Failures()
        for repository in self.places(capability, subject):
            try:
                answer = ask(repository)
            except PASSED_OVER as error:
                self.failed(repository, subject, error)
                failures.add(repository, error)
            else:
                self.worked(repository, subject)
                return answer
        raise failures.last()

    def worked(self, repository: Repository, subject: str) -> None:
        """Notes that a place did its work."""
        self._resting.recovered(repository.endpoint.url, _key(repository, subject))

    def failed(self, repository: Repository, subject: str, error: LazylayerError) -> None:
        """Notes that a place failed, so that others are asked first for a while."""
        everything = isinstance(error, UnavailableError)
        key = repository.endpoint.url if everything else _key(repository, subject)
        self._pass_over(key, repository, "everything" if everything else subject, error)

    def doubted(self, repository: Repository, subject: str, error: Exception) -> None:
        """Notes that a place served wrong bytes. `worked` does not take it back: serving says nothing of the bytes."""
        self._pass_over(_doubt(repository, subject), repository, subject, error)

    def _pass_over(self, key: str, repository: Repository, what: str, error: Exception) -> None:
        if len(self._repositories) == 1:
            return
        seconds = self._resting.rest(key)
        step(
            "{place} is passed over for {seconds:g} s, for {what}: {error}",
            place=repository.endpoint.describe(),
            seconds=seconds,
            what=what,
            error=str(error),
        )

    def _rests(self, repository: Repository, subject: str) -> bool:
        keys = repository.endpoint.url, _key(repository, subject), _doubt(repository, subject)
        return any(self._resting.rests(key) for key in keys)


def _key(repository: Repository, subject: str) -> str:
    return f"{repository.endpoint.url} {repository.name} {subject}"


def _doubt(repository: Repository, subject: str) -> str:
    return f"{_key(repository, subject)} bytes"
