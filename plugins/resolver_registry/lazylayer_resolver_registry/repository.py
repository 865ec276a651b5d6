"""One repository at one endpoint: requests that are authorised, and answers that are small and whole."""

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
    """Requests to one repository. Safe to use from any thread."""

    def __init__(self, client: EndpointClient, name: str, authorizer: Authorizer, keychain: Keychain) -> None:
        if not _NAME.fullmatch(name):
            raise UnavailableError(f"{client.endpoint.login}: {name!r} is no repository name")
        self.client = client
        self.endpoint = client.endpoint
        self.root = client.root
        self.name = name
        self.authorizer = authorizer
        self._keychain = keychain

    def __str__(self) -> str:
        """For messages: the endpoint's host and the name."""
        return f"{authority(self.root)}/{self.name}"

    def url(self, path: str) -> httpx.URL:
        """The address of something in the repository, `blobs/sha256:…` for one."""
        return self.client.url(f"{self.name}/{path}")

    def reading_from(self, other: str) -> Repository:
        """The same repository, with the right to read another one of its registry as well."""
        scopes = f"repository:{self.name}:pull,push", f"repository:{other}:pull"
        return Repository(self.client, self.name, Authorizer(self.client, *scopes), self._keychain)

    @contextmanager
    def send(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], content: bytes | None = None
    ) -> Iterator[httpx.Response]:
        """The answer to a request, authorised if `url` is of the endpoint itself, and only then.

        When the registry refuses, credentials are asked for again, once. The answer may be anything
        else but a refusal; raises AuthenticationError for that, and RetryableError for what may pass.
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
                    raise AuthenticationError(f"{self} answered {response.status_code}, also with new credentials")
            # The answer is done with by now, so that its connection can carry what follows.
            self.authorizer.refused(response, authorization, self._keychain)

    def get(self, path: str, headers: Mapping[str, str], limit: int, what: str) -> tuple[bytes, httpx.Headers]:
        """The body, at most `limit` bytes, and the headers of something small; `what` names it in errors.

        Redirects are followed. Tries again what may pass. Raises NotFoundError, AuthenticationError
        or UnavailableError.
        """
        patience = self.client.patience()
        while True:
            try:
                return self._get(self.url(path), headers, limit, what)
            except RetryableError as error:
                patience.wait(error)

    def _get(self, url: httpx.URL, headers: Mapping[str, str], limit: int, what: str) -> tuple[bytes, httpx.Headers]:
        for _ in range(_MAX_REDIRECTS):
            with self.send("GET", url, headers) as response:
                target = redirect_target(response, self.root)
                if target is None:
                    check_status(response, what)
                    return read_bounded(response, limit, what), response.headers
                url = target
        raise UnavailableError(f"{what}: {self} sends us around in circles")


def redirect_target(response: httpx.Response, registry: httpx.URL) -> httpx.URL | None:
    """Where an answer sends us, or None if it does not. Raises UnavailableError for where it must not."""
    if response.status_code not in _REDIRECTS:
        return None
    location = response.headers.get("Location", "")
    try:
        target = response.url.join(location)
    except httpx.InvalidURL as error:
        raise UnavailableError(f"{registry.host} redirects to something that is no URL") from error
    if not location:
        raise UnavailableError(f"{registry.host} redirects to nowhere")
    check_target(target, registry, "a redirect")
    return target
