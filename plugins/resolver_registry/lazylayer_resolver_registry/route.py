"""Choose a host for a repository: its mirrors in order, then the registry itself.

A host that fails is skipped for a while: an unreachable one for everything, one that lacks or refuses
something for that alone. If all hosts have failed, all are tried again.

Never hold `Cooldowns._lock` during a request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from lazylayer.errors import LayerError, LazylayerError, ResolveError, UnavailableError
from lazylayer_resolver_registry.endpoints import Capability
from lazylayer_resolver_registry.repository import Repository
from lazylayer_resolver_registry.steps import step

__all__ = ["TRY_NEXT", "Cooldowns", "Failures", "Route"]

Answer = TypeVar("Answer")

TRY_NEXT = (ResolveError, LayerError)
"""Failures of a host after which the next one is tried. Others, such as a failing keychain, are raised."""
_MOST_KEPT = 10_000
_LONGEST_COOLDOWN = 600.0
"""Seconds."""


class Cooldowns:
    """Recent failures, and until when to skip each. Safe to use from any thread.

    :param seconds: the first pause; each further failure doubles it, up to ten minutes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._failed: dict[str, _Cooldown] = {}
        self._lock = threading.Lock()

    def begin(self, key: str) -> float:
        """Skip `key` from now on; return for how many seconds."""
        now = time.monotonic()
        with self._lock:
            if len(self._failed) >= _MOST_KEPT:
                self._failed = {key: cooldown for key, cooldown in self._failed.items() if cooldown.until > now}
            before = self._failed.get(key)
            seconds = (
                self._seconds if before is None else min(2 * before.seconds, max(_LONGEST_COOLDOWN, self._seconds))
            )
            self._failed[key] = _Cooldown(now + seconds, seconds)
        return seconds

    def active(self, key: str) -> bool:
        """Return True if `key` is being skipped."""
        if not self._failed:  # the usual case, checked on every request
            return False
        with self._lock:
            cooldown = self._failed.get(key)
        return cooldown is not None and cooldown.until > time.monotonic()

    def clear(self, *keys: str) -> None:
        """Forget the failures of these keys."""
        if not self._failed:
            return
        with self._lock:
            for key in keys:
                self._failed.pop(key, None)


class _Cooldown(NamedTuple):
    until: float
    seconds: float


class Failures:
    """The failures of one request at several hosts, merged into one error. Used by one thread."""

    def __init__(self) -> None:
        self._found: list[tuple[Repository, LazylayerError]] = []

    def add(self, repository: Repository, error: LazylayerError) -> None:
        """Add the error of one host."""
        self._found.append((repository, error))

    def last(self) -> LazylayerError:
        """Return the error to raise: that of the registry, or of the last host, followed by the others."""
        decisive = next((each for each in self._found if not each[0].endpoint.mirror), self._found[-1])
        others = [f"{repository}: {error}" for repository, error in self._found if repository is not decisive[0]]
        if not others:
            return decisive[1]
        told = f"{decisive[1]}; before that, {'; '.join(others)}"
        error = type(decisive[1])(told) if isinstance(decisive[1], TRY_NEXT) else UnavailableError(told)
        error.__cause__ = decisive[1]
        return error


class Route:
    """All hosts that serve one repository. Safe to use from any thread."""

    def __init__(self, repositories: Sequence[Repository], cooldowns: Cooldowns) -> None:
        self._repositories = repositories
        self._cooldowns = cooldowns

    def __str__(self) -> str:
        """Return the registry and the repository, for messages."""
        return str(self._repositories[-1])

    def candidates(self, capability: Capability, subject: str = "") -> list[Repository]:
        """Return the repositories with `capability`, those to try first at the start.

        :param subject: a tag or digest, to skip hosts that failed for it.

        Raises UnavailableError if no host has the capability.
        """
        able = [each for each in self._repositories if capability in each.endpoint.capabilities]
        if not able:
            raise UnavailableError(f"{self}: no host has the capability {capability}; configure [[resolver.hosts]]")
        if len(able) == 1:
            return able
        return sorted(able, key=lambda each: self._is_skipped(each, subject))

    def first(self, capability: Capability, subject: str, ask: Callable[[Repository], Answer]) -> Answer:
        """Return the answer of the first host that does not fail. Raises the error of `Failures.last`."""
        failures = Failures()
        for repository in self.candidates(capability, subject):
            try:
                answer = ask(repository)
            except TRY_NEXT as error:
                self.failed(repository, subject, error)
                failures.add(repository, error)
            else:
                self.worked(repository, subject)
                return answer
        raise failures.last()

    def worked(self, repository: Repository, subject: str) -> None:
        """Forget the failures of a host that succeeded."""
        self._cooldowns.clear(repository.endpoint.url, _key(repository, subject))

    def failed(self, repository: Repository, subject: str, error: LazylayerError) -> None:
        """Skip a host that failed, so that others are tried first for a while."""
        everything = isinstance(error, UnavailableError)
        key = repository.endpoint.url if everything else _key(repository, subject)
        self._skip(key, repository, "everything" if everything else subject, error)

    def doubted(self, repository: Repository, subject: str, error: Exception) -> None:
        """Skip a host that served wrong bytes. `worked` does not undo this: a complete body may be wrong."""
        self._skip(_doubt(repository, subject), repository, subject, error)

    def _skip(self, key: str, repository: Repository, what: str, error: Exception) -> None:
        if len(self._repositories) == 1:
            return
        seconds = self._cooldowns.begin(key)
        step(
            "{place} is skipped for {seconds:g} s, for {what}: {error}",
            place=repository.endpoint.describe(),
            seconds=seconds,
            what=what,
            error=str(error),
        )

    def _is_skipped(self, repository: Repository, subject: str) -> bool:
        keys = repository.endpoint.url, _key(repository, subject), _doubt(repository, subject)
        return any(self._cooldowns.active(key) for key in keys)


def _key(repository: Repository, subject: str) -> str:
    return f"{repository.endpoint.url} {repository.name} {subject}"


def _doubt(repository: Repository, subject: str) -> str:
    return f"{_key(repository, subject)} bytes"
