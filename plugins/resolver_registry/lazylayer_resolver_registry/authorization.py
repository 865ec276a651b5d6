"""Getting past a registry's door: basic credentials, and bearer tokens from its token server.

Sources: the token protocol of Docker and the distribution specification (`spec/auth/token.md`,
`spec/auth/oauth.md`). One `Authorizer` is shared by everything that is read from a repository, so that
an image of many layers costs one exchange.

The lock is `Authorizer._lock`. It is held during an exchange, on purpose: whoever needs a token then
has to wait for it anyway.
"""

from __future__ import annotations

import base64
import threading
import time

import httpx
import msgspec

from lazylayer.api.credentials import Credentials, Keychain
from lazylayer.errors import AuthenticationError, UnavailableError
from lazylayer_resolver_registry.challenges import Challenge, parse_challenges
from lazylayer_resolver_registry.client import EndpointClient
from lazylayer_resolver_registry.trail import step
from lazylayer_resolver_registry.transport import RetryableError, check_status, read_bounded
from lazylayer_resolver_registry.urls import check_target, shown

__all__ = ["Authorizer"]

_CLIENT_ID = "lazylayer"
_MAX_TOKEN_ANSWER = 1024 * 1024
_DEFAULT_LIFETIME = 60.0
"""Seconds, when the token server does not say; the protocol's own default."""
_LONGEST_LIFETIME = 3600.0


class _TokenAnswer(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


class Authorizer:
    """Authorises requests to one repository of one registry. Safe to use from any thread.

    `scope` is the right that is needed there, `more` are rights to other repositories that go with it.
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
        self.exchanges = 0
        """How often the token server was asked."""

    def header(self, keychain: Keychain) -> str:
        """The value of the Authorization header, empty while none was demanded. Renews a token in time."""
        with self._lock:
            if time.monotonic() >= self._renew_at and self._challenge is not None:
                self._answer(self._challenge, keychain)
            return self._header

    def refused(self, response: httpx.Response, used: str, keychain: Keychain) -> None:
        """Gets a better header than `used`, with which `response` was refused.

        Asks the keychain afresh. Raises AuthenticationError where there is none to be had.
        """
        challenges = parse_challenges(response.headers.get_list("WWW-Authenticate"))
        with self._lock:
            if self._header != used:
                return  # somebody else was refused too, and has got one
            challenge = self._choose(challenges) or self._challenge
            if challenge is None:
                raise AuthenticationError(
                    f"{self._host} answered {response.status_code} and does not say how to authenticate"
                )
            self._answer(challenge, keychain)
            if self._header == used:
                raise AuthenticationError(f"{self._host} refuses the credentials it was given before")

    def _choose(self, challenges: list[Challenge]) -> Challenge | None:
        for scheme in ("bearer", "basic"):
            for challenge in challenges:
                if challenge.scheme == scheme:
                    return challenge
        return None

    def _answer(self, challenge: Challenge, keychain: Keychain) -> None:
        credentials = keychain(self._host)
        if credentials is None:
            step("no keychain has credentials for {host}", host=self._host)
        else:
            step("{host}: using {credentials}", host=self._host, credentials=str(credentials))
        if credentials is not None and credentials.registry_token:
            self._keep(challenge, f"Bearer {credentials.registry_token}", _LONGEST_LIFETIME)
        elif challenge.scheme == "basic":
            if credentials is None or not credentials.username:
                raise AuthenticationError(
                    f"{self._host} wants a name and a password, and no keychain has one for it; "
                    f"log in with `docker login {self._host}`, or configure a keychain"
                )
            self._keep(challenge, _basic(credentials), float("inf"))
        else:
            token, lifetime = self._exchange(challenge, credentials)
            self._keep(challenge, f"Bearer {token}", lifetime)

    def _keep(self, challenge: Challenge, header: str, lifetime: float) -> None:
        self._challenge, self._header = challenge, header
        self._renew_at = time.monotonic() + 0.9 * lifetime

    def _exchange(self, challenge: Challenge, credentials: Credentials | None) -> tuple[str, float]:
        """Asks the token server; returns the token and the seconds that it is good for."""
        realm = challenge.parameters.get("realm", "")
        try:
            url = httpx.URL(realm)
        except httpx.InvalidURL as error:
            raise AuthenticationError(f"{self._host} names a token server that is no URL") from error
        check_target(url, self.client.root, "the realm of its challenge")
        service = challenge.parameters.get("service", "")
        scopes = self._scopes_for(challenge.parameters.get("scope", ""))
        patience = self.client.patience()
        while True:
            try:
                return self._ask(url, service, scopes, credentials)
            except RetryableError as error:
                patience.wait(error)

    def _scopes_for(self, demanded: str) -> list[str]:
        """What to ask for: the rights that we need, unless the registry knows the repository by another name."""
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
                whose = f"the credentials from {credentials.source}" if credentials else "a request without credentials"
                raise AuthenticationError(
                    f"the token server of {self._host}, {url.host}, answered {response.status_code} to {whose}"
                )
            check_status(response, f"token for {self._host}")
            if response.status_code != 200:
                raise UnavailableError(f"the token server of {self._host} answered {response.status_code}")
            body = read_bounded(response, _MAX_TOKEN_ANSWER, f"token for {self._host}")
        try:
            answer = msgspec.json.decode(body, type=_TokenAnswer)
        except msgspec.DecodeError:
            raise UnavailableError(f"the token server of {self._host} sent something that is no token") from None
        step(
            "the token server {url} gave a token for {scope}, asked {how}",
            url=shown(url),
            scope=" and ".join(scopes),
            how="with credentials" if credentials is not None else "anonymously",
        )
        token = answer.token or answer.access_token
        if not token or any(character < "!" or character > "~" for character in token):
            raise UnavailableError(f"the token server of {self._host} sent no token")
        lifetime = _DEFAULT_LIFETIME if answer.expires_in is None else answer.expires_in
        return token, min(max(lifetime, 1.0), _LONGEST_LIFETIME)


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
