"""HTTP to registries, token servers and blob storages: connections and retries.

Redirects are not followed here: the caller decides where credentials may go.
Never hold `Transport._lock` during a request.
"""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
from loguru import logger

from lazylayer.api.decoding import decode_json
from lazylayer.api.text import one_line
from lazylayer.errors import ConfigurationError, FormatError, NotFoundError, UnavailableError
from lazylayer_resolver_registry.connections import UNCONFIGURED, ConnectionOptions, make_client
from lazylayer_resolver_registry.options import Options
from lazylayer_resolver_registry.proxies import Proxies
from lazylayer_resolver_registry.slots import HostSlots, NoSlotError
from lazylayer_resolver_registry.steps import step
from lazylayer_resolver_registry.streams import Streams
from lazylayer_resolver_registry.urls import authority, display_url

__all__ = ["Retries", "RetryableError", "Transport", "check_status", "finish", "read_bounded"]

_PROGRESS = 256 * 1024
"""Bytes of progress that reset the count of failures."""
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 10.0
_LONGEST_RETRY_AFTER = 60.0
_TRIED_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_MAX_ERROR_BODY = 2048
_MAX_ERROR_TEXT = 300
_MAX_REST = 16 * 1024
_ENDING = "lazylayer is ending"


class RetryableError(UnavailableError):
    """A temporary failure. `after` is the server's Retry-After in seconds, or 0."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class Retries:
    """The retries of one request. Used by one thread.

    Allows `attempts` attempts without progress, but only one more once the idle time-out has passed, so
    that idle time-outs never add up. A server that repeatedly sends a little and stops makes no progress.
    """

    def __init__(self, transport: Transport, attempts: int) -> None:
        self._transport = transport
        self._attempts = attempts
        self._failures = 0
        self._failing_since = 0.0
        self._received = 0

    def progress(self, size: int) -> None:
        """Count `size` bytes received."""
        self._received += size
        if self._received >= _PROGRESS:
            self._failures = self._received = 0

    def wait(self, error: RetryableError) -> None:
        """Wait before the next attempt, with exponential back-off and jitter.

        Raises UnavailableError after the last attempt.
        """
        now = time.monotonic()
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        too_long = self._failures > 1 and now - self._failing_since >= self._transport.options.idle_timeout
        if self._failures >= self._attempts or too_long:
            # Not a RetryableError: callers that retry too would multiply the attempts.
            raise UnavailableError(str(error)) from error
        pause = min(_FIRST_PAUSE * 2 ** (self._failures - 1), _LONGEST_PAUSE)
        pause *= 0.5 + random.random()  # noqa: S311 - spreads clients, hides nothing
        step("{error}; retrying", error=str(error))
        self._transport.pause(max(pause, error.after))


class _Client:
    """A client, closed after it was replaced and its last user has left. `Transport._lock` guards it."""

    __slots__ = ("changed", "client", "retired", "users")

    def __init__(self, client: httpx.Client, changed: tuple[int, ...]) -> None:
        self.client = client
        self.changed = changed
        """Modification times of its certificates."""
        self.users = 0
        self.retired = False


class Transport:
    """All connections of the plugin. Safe to use from any thread."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.single_range_hosts: set[str] = set()
        """Registries that answered several ranges wrongly."""
        self._proxies = Proxies.of_environment()
        self._lock = threading.Lock()
        self._clients: dict[tuple[bool, str, ConnectionOptions], _Client] = {}
        self._closing = threading.Event()
        self._streams = Streams()
        self._slots = HostSlots(options.connections)

    @contextmanager
    def send(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str] | Sequence[tuple[str, str]],
        content: bytes | None = None,
        connection: ConnectionOptions = UNCONFIGURED,
    ) -> Iterator[httpx.Response]:
        """Yield the response before its body is read; close it at the end.

        Raises RetryableError for connection failures, also while the body is read inside the `with`
        block; ConfigurationError for invalid certificates and proxies.
        """
        chosen, what = self._client(url, connection), f"{method} {display_url(url)}"
        try:
            with self._slots.take(authority(url), chosen.client.timeout.read):
                request = chosen.client.build_request(method, url, headers=httpx.Headers(headers), content=content)
                response = chosen.client.send(request, stream=True)
                try:
                    step("{what} answered {status}", what=what, status=response.status_code)
                    yield response
                    if not response.is_stream_consumed:
                        finish(response, response.iter_raw())
                finally:
                    response.close()
        except httpx.HTTPError as error:
            if self._closing.is_set():
                raise UnavailableError(_ENDING) from error
            raise _explained(what, error) from error
        except NoSlotError as error:
            raise RetryableError(f"{what}: {error}") from error
        except httpx.InvalidURL as error:
            raise UnavailableError(f"{what}: {error}") from error
        finally:
            self._leave(chosen)

    def warm_up(self) -> None:
        """Load the system's certificates. Raises ConfigurationError."""
        for scheme in ("http", "https"):
            self._leave(self._client(httpx.URL(f"{scheme}://registry.invalid"), UNCONFIGURED))

    def retries(self, attempts: int = 0) -> Retries:
        """Return a new count of attempts, by default `options.attempts`."""
        return Retries(self, attempts or self.options.attempts)

    def pause(self, seconds: float) -> None:
        """Wait. Raises UnavailableError as soon as the transport is closed."""
        if self._closing.wait(seconds):
            raise UnavailableError(_ENDING)

    def close(self) -> None:
        """End all requests in flight, waits for connections, and pauses between attempts, at once.

        They raise UnavailableError.
        """
        self._closing.set()
        self._slots.close()
        self._streams.end()
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
            for each in clients:
                each.retired = True
            unused = [each for each in clients if not each.users]
        for each in unused:
            each.client.close()

    def _client(self, url: httpx.URL, connection: ConnectionOptions) -> _Client:
        """Return the client for a URL; the caller returns it with `_leave`.

        Certificates are loaded on first use, and again after their files change, since mounts outlive
        certificates.
        """
        fresh = connection.refreshed()
        proxy = fresh.proxy or self._proxies.proxy(url)
        key = (url.scheme == "https", proxy, msgspec.structs.replace(fresh, changed=()) if fresh.changed else fresh)
        with self._lock:
            if self._closing.is_set():
                raise UnavailableError(_ENDING)
            known = self._clients.get(key)
            if known is None or known.changed != fresh.changed:
                before, known = known, self._make_client(key[0], proxy, fresh, known)
                self._clients[key] = known
                if before is not None and before is not known:
                    before.retired = True
                    if not before.users:
                        before.client.close()
            known.users += 1
            return known

    def _leave(self, client: _Client) -> None:
        with self._lock:
            client.users -= 1
            unused = client.retired and not client.users
        if unused:
            client.client.close()

    def _make_client(self, secure: bool, proxy: str, connection: ConnectionOptions, before: _Client | None) -> _Client:
        """Return a new client, or `before` if the new certificates are invalid, perhaps half written."""
        try:
            client = make_client(secure, proxy, connection, self.options, self._streams)
        except ConfigurationError as error:
            if before is None:
                raise
            logger.warning("{error}; keeping the previous certificates", error=str(error))
            return before
        return _Client(client, connection.changed)


def _explained(request: str, error: httpx.HTTPError) -> UnavailableError:
    reason = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return UnavailableError(
            f"{request}: certificate not trusted: {reason}; configure its authority as `ca` in [[resolver.hosts]] "
            "or hosts.toml"
        )
    return RetryableError(f"{request}: {reason}")


def check_status(response: httpx.Response, what: str) -> None:
    """Raise NotFoundError, RetryableError or UnavailableError unless the request succeeded.

    The error includes the server's message.
    """
    status = response.status_code
    if status < 300:
        return
    said = f"{what}: {display_url(response.url)} answered {status}{_error_text(response)}"
    if status in (404, 410):
        raise NotFoundError(said)
    if status in _TRIED_AGAIN:
        raise RetryableError(said, _retry_after(response))
    raise UnavailableError(said)


def finish(response: httpx.Response, pieces: Iterator[bytes]) -> None:
    """Read a body to its end if little is missing, so that its connection can be reused.

    :param pieces: the rest of `response.iter_raw()`.
    """
    length = response.headers.get("Content-Length", "")
    missing = int(length) - response.num_bytes_downloaded if length.isdigit() and len(length) < 19 else 0
    if response.request.method == "HEAD" or missing <= _MAX_REST:
        seen = 0
        for piece in pieces:
            seen += len(piece)
            if seen > _MAX_REST:
                return


def read_bounded(response: httpx.Response, limit: int, what: str) -> bytes:
    """Return the body. Raises UnavailableError if it is longer than `limit` bytes."""
    body = bytearray()
    for piece in response.iter_raw():
        body += piece
        if len(body) > limit:
            raise UnavailableError(f"{what}: {display_url(response.url)} sent more than {limit} bytes")
    return bytes(body)


def _error_text(response: httpx.Response) -> str:
    """Return a registry's error message as one short line, clean and scrubbed, or "" without one."""
    try:
        body = b""
        for piece in response.iter_raw():
            body += piece
            if len(body) > _MAX_ERROR_BODY:
                return ""
        errors = decode_json(body, dict[str, Any])["errors"]
        return one_line(f": {errors[0]['code']} {errors[0].get('message', '')}".rstrip())[:_MAX_ERROR_TEXT]
    except (httpx.HTTPError, FormatError, LookupError, TypeError, AttributeError):
        return ""


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds of a Retry-After header, a number or a date; at most 60, 0 if invalid."""
    text = response.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return min(float(text), _LONGEST_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        return 0.0
    return min(max(moment - time.time(), 0.0), _LONGEST_RETRY_AFTER)
