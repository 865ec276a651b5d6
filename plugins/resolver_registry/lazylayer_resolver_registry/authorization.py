"""Authorize requests: basic credentials, and bearer tokens from a registry's token server.

Sources: Docker's token protocol and the distribution specification (`spec/auth/token.md`,
`spec/auth/oauth.md`). All reads from a repository share one `Authorizer`, so an image with many layers
costs one token exchange.

`Authorizer._lock` is held during an exchange on purpose: other requests need the token too.
"""

from __future__ import annotations

import base64
import threading
import time

import httpx
import msgspec

from lazylayer.api.credentials import Credentials, Keychain
from lazylayer.api.decoding import decode_json
from lazylayer.errors import AuthenticationError, FormatError, UnavailableError
from lazylayer_resolver_registry.challenges import Challenge, parse_challenges
from lazylayer_resolver_registry.client import EndpointClient
from lazylayer_resolver_registry.steps import step
from lazylayer_resolver_registry.transport import RetryableError, check_status, read_bounded
from lazylayer_resolver_registry.urls import check_target, display_url

__all__ = ["Authorizer"]

_CLIENT_ID = "lazylayer"
_MAX_TOKEN_ANSWER = 1024 * 1024
_DEFAULT_LIFETIME = 60.0
"""Seconds, if the token server gives no lifetime; the protocol's own default."""
_LONGEST_LIFETIME = 3600.0


class _TokenAnswer(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


class Authorizer:
    """The authorization of requests to one repository. Safe to use from any thread.

    :param scope: the right needed on the repository.
    :param more: rights to other repositories, requested in the same token.
    """

    def __init__(self, client: EndpointClient, scope: str, *more: str) -> None:
        self.client = client
        self._host = client.endpoint.login
        self._scope = scope
        self._more = more
        self._lock = threading.Lock()
        self._header = ""
        self._renew_at = float("inf")
        self._challenge: Challenge | None = None
        self._login = ""
        self.exchanges = 0
        """Requests sent to the token server."""

    def header(self, keychain: Keychain) -> str:
        """Return the value of the Authorization header, or "" if none was demanded yet.

        Renews a token that is about to expire. Raises AuthenticationError or UnavailableError.
        """
        with self._lock:
            if time.monotonic() >= self._renew_at and self._challenge is not None:
                self._answer(self._challenge, keychain)
            return self._header

    def refused(self, response: httpx.Response, used: str, keychain: Keychain) -> None:
        """Replace the header `used`, with which the registry refused `response`.

        Asks the keychain again. Raises AuthenticationError if there are no better credentials.
        """
        challenges = parse_challenges(response.headers.get_list("WWW-Authenticate"))
        with self._lock:
            if self._header != used:
                return  # another thread was refused too, and has replaced it
            challenge = self._choose(challenges) or self._challenge
            if challenge is None:
                raise AuthenticationError(
                    f"{self._host}: answered {response.status_code} without a usable WWW-Authenticate challenge"
                )
            self._answer(challenge, keychain)
            if self._header == used:
                raise AuthenticationError(
                    f"{self._host}: answered {response.status_code} twice: {self.explain_refusal()}"
                )

    def explain_refusal(self) -> str:
        """Return which login was refused, never its secret, and what to do."""
        return (
            f"it refused {self._login}; log in again with `docker login {self._host}` or correct the keychain, "
            "then try `lazylayer login-check`"
        )

    def _choose(self, challenges: list[Challenge]) -> Challenge | None:
        for scheme in ("bearer", "basic"):
            for challenge in challenges:
                if challenge.scheme == scheme:
                    return challenge
        return None

    def _answer(self, challenge: Challenge, keychain: Keychain) -> None:
        credentials = keychain(self._host)
        self._login = _describe_login(credentials)
        if credentials is None:
            step("no keychain has credentials for {host}", host=self._host)
        else:
            step("{host}: using {credentials}", host=self._host, credentials=str(credentials))
        if credentials is not None and credentials.registry_token:
            self._keep(challenge, f"Bearer {credentials.registry_token}", _LONGEST_LIFETIME)
        elif challenge.scheme == "basic":
            if credentials is None or not credentials.username:
                raise AuthenticationError(
                    f"{self._host}: login required, but no keychain has a user and password for it; "
                    f"run `docker login {self._host}` or configure a keychain"
                )
            self._keep(challenge, _basic(credentials), float("inf"))
        else:
            token, lifetime = self._exchange(challenge, credentials)
            self._keep(challenge, f"Bearer {token}", lifetime)

    def _keep(self, challenge: Challenge, header: str, lifetime: float) -> None:
        self._challenge, self._header = challenge, header
        self._renew_at = time.monotonic() + 0.9 * lifetime

    def _exchange(self, challenge: Challenge, credentials: Credentials | None) -> tuple[str, float]:
        """Return a token from the token server and its lifetime in seconds."""
        realm = challenge.parameters.get("realm", "")
        try:
            url = httpx.URL(realm)
        except httpx.InvalidURL as error:
            raise AuthenticationError(f"{self._host}: invalid token server URL in its challenge") from error
        check_target(url, self.client.root, "the realm of its challenge")
        service = challenge.parameters.get("service", "")
        scopes = self._scopes_for(challenge.parameters.get("scope", ""))
        retries = self.client.retries()
        while True:
            try:
                return self._ask(url, service, scopes, credentials)
            except RetryableError as error:
                retries.wait(error)

    def _scopes_for(self, demanded: str) -> list[str]:
        """Return the scopes to request: ours, unless the registry calls the repository by another name."""
        resource = self._scope.rpartition(":")[0]
        return [self._scope, *self._more] if not demanded or f"{resource}:" in demanded else demanded.split()

    def _ask(
        self, url: httpx.URL, service: str, scopes: list[str], credentials: Credentials | None
    ) -> tuple[str, float]:
        self.exchanges += 1
        headers = {"Accept": "application/json"}
        fields: dict[str, str | list[str]] = {"service": service} if service else {}
        if credentials is not None and credentials.identity_token:
            fields |= {
                "grant_type": "refresh_token",
                "client_id": _CLIENT_ID,
                "refresh_token": credentials.identity_token,
                "scope": " ".join(scopes),
            }
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            sent = self.client.send("POST", url, headers, str(httpx.QueryParams(fields)).encode())
        else:
            if credentials is not None and credentials.username:
                headers["Authorization"] = _basic(credentials)
                fields["account"] = credentials.username
            fields["scope"] = scopes  # one parameter each, where the form above has one for all
            sent = self.client.send("GET", url.copy_merge_params(fields), headers)
        with sent as response:
            if response.status_code in (400, 401, 403):
                raise AuthenticationError(
                    f"{self._host}: its token server {url.host} answered {response.status_code}: "
                    f"{self.explain_refusal()}"
                )
            check_status(response, f"token for {self._host}")
            if response.status_code != 200:
                raise UnavailableError(f"{self._host}: its token server {url.host} answered {response.status_code}")
            body = read_bounded(response, _MAX_TOKEN_ANSWER, f"token for {self._host}")
        try:
            answer = decode_json(body, _TokenAnswer)
        except FormatError:
            raise UnavailableError(f"{self._host}: its token server {url.host} sent an invalid answer") from None
        step(
            "the token server {url} gave a token for {scope}, asked {how}",
            url=display_url(url),
            scope=" and ".join(scopes),
            how="with credentials" if credentials is not None else "anonymously",
        )
        token = answer.token or answer.access_token
        if not token or any(character < "!" or character > "~" for character in token):
            raise UnavailableError(f"{self._host}: its token server {url.host} sent no valid token")
        lifetime = _DEFAULT_LIFETIME if answer.expires_in is None else answer.expires_in
        return token, min(max(lifetime, 1.0), _LONGEST_LIFETIME)


def _describe_login(credentials: Credentials | None) -> str:
    """Return who logs in, and the place that says so; never a secret."""
    if credentials is None:
        return "anonymous access (no keychain has credentials)"
    kind = "registry token" if credentials.registry_token else "identity token"
    who = f'user "{credentials.username}"' if credentials.username else f"the {kind}"
    return f"{who} ({credentials.source or 'the keychain does not say from where'})"


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
