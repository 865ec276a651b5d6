"""Send authorized requests to one repository at one endpoint, and fetch small documents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx

from lazylayer.api.credentials import Keychain
from lazylayer.errors import AuthenticationError, UnavailableError
from lazylayer_resolver_registry.authorization import Authorizer
from lazylayer_resolver_registry.client import EndpointClient
from lazylayer_resolver_registry.transport import RetryableError, check_status, read_bounded
from lazylayer_resolver_registry.urls import authority, check_target

__all__ = ["Repository", "redirect_target"]

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REFUSALS = frozenset({401, 403})
_NAME = re.compile(r"[a-z0-9._/-]+")


class Repository:
    """One repository at one endpoint. Safe to use from any thread."""

    def __init__(self, client: EndpointClient, name: str, authorizer: Authorizer, keychain: Keychain) -> None:
        if not _NAME.fullmatch(name):
            raise UnavailableError(f"{client.endpoint.login}: invalid repository name {name!r}")
        self.client = client
        self.endpoint = client.endpoint
        self.root = client.root
        self.name = name
        self.authorizer = authorizer
        self._keychain = keychain

    def __str__(self) -> str:
        """Return the endpoint's host and the repository's name, for messages."""
        return f"{authority(self.root)}/{self.name}"

    def url(self, path: str) -> httpx.URL:
        """Return the URL of `path` in the repository, for example `blobs/sha256:…`."""
        return self.client.url(f"{self.name}/{path}")

    def reading_from(self, other: str) -> Repository:
        """Return this repository with the right to read `other` in the same registry as well."""
        scopes = f"repository:{self.name}:pull,push", f"repository:{other}:pull"
        return Repository(self.client, self.name, Authorizer(self.client, *scopes), self._keychain)

    @contextmanager
    def send(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], content: bytes | None = None
    ) -> Iterator[httpx.Response]:
        """Yield the response to a request, authorized only if `url` is on the endpoint itself.

        After a refusal, asks keychains again, once. The response may have any other status.
        Raises AuthenticationError for a second refusal, RetryableError for temporary failures.
        """
        ours = self.client.owns(url)
        for last in (False, True):
            authorization = self.authorizer.header(self._keychain) if ours else ""
            merged = {**headers, "Authorization": authorization} if authorization else headers
            with self.client.send(method, url, merged, content) as response:
                if not ours or response.status_code not in _REFUSALS:
                    yield response
                    return
                if last:
                    raise AuthenticationError(
                        f"{self}: login refused with {response.status_code}, also with new credentials: "
                        f"{self.authorizer.explain_refusal()}"
                    )
            # The response is closed by now, so that its connection can carry the next request.
            self.authorizer.refused(response, authorization, self._keychain)

    def get(self, path: str, headers: Mapping[str, str], limit: int, what: str) -> tuple[bytes, httpx.Headers]:
        """Fetch a small document; return its body, at most `limit` bytes, and the headers.

        :param what: names the document in errors.

        Follows redirects and retries temporary failures. Raises NotFoundError, AuthenticationError
        or UnavailableError.
        """
        retries = self.client.retries()
        while True:
            try:
                return self._get(self.url(path), headers, limit, what)
            except RetryableError as error:
                retries.wait(error)

    def _get(self, url: httpx.URL, headers: Mapping[str, str], limit: int, what: str) -> tuple[bytes, httpx.Headers]:
        for _ in range(_MAX_REDIRECTS):
            with self.send("GET", url, headers) as response:
                target = redirect_target(response, self.root)
                if target is None:
                    check_status(response, what)
                    return read_bounded(response, limit, what), response.headers
                url = target
        raise UnavailableError(f"{what}: {self}: redirect loop: more than {_MAX_REDIRECTS} hops")


def redirect_target(response: httpx.Response, registry: httpx.URL) -> httpx.URL | None:
    """Return the target of a redirect, or None for other responses.

    Raises UnavailableError for an invalid or forbidden target.
    """
    if response.status_code not in _REDIRECTS:
        return None
    location = response.headers.get("Location", "")
    try:
        target = response.url.join(location)
    except httpx.InvalidURL as error:
        raise UnavailableError(f"{registry.host}: redirect to an invalid URL") from error
    if not location:
        raise UnavailableError(f"{registry.host}: redirect without a Location header")
    check_target(target, registry, "a redirect")
    return target
