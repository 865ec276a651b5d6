"""The credentials that a scripted registry asks for: basic, or tokens by Docker's token protocol.

Source: the "Token Authentication Specification" and "OAuth2 Token Authentication" pages of CNCF
Distribution.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qsl

from lazylayer_testing.registry.answers import Answer, error_answer
from lazylayer_testing.registry.recording import RecordedRequest

__all__ = ["Authentication", "BasicAuthentication", "TokenAuthentication", "TokenExchange"]


class Authentication(Protocol):
    """The authentication that a registry demands of a request."""

    def refuse(self, request: RecordedRequest, scope: str, origin: str) -> Answer | None:
        """Return the refusal, or None if the request may go on.

        `scope` is what the request needs (`repository:NAME:pull`, more of them with spaces between),
        `origin` the registry's own URL.
        """


def _parse_basic(header: str) -> tuple[str, str] | None:
    kind, _, encoded = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return None
    return (name, password) if colon else None


class BasicAuthentication:
    """HTTP basic authentication with these users (name to password)."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self.users = dict(users)

    def refuse(self, request: RecordedRequest, scope: str, origin: str) -> Answer | None:  # noqa: ARG002
        """401 with a basic challenge unless the request names a user with the right password."""
        given = _parse_basic(request.headers.get("authorization", ""))
        if given is not None and self.users.get(given[0]) == given[1]:
            return None
        return error_answer(
            401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": 'Basic realm="registry"'}
        )


@dataclass(frozen=True)
class TokenExchange:
    """One request to the token endpoint. `user` is empty for an anonymous one."""

    method: str
    user: str
    scopes: tuple[str, ...]
    service: str
    granted: bool
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class _Token:
    scopes: tuple[str, ...]
    expires: float


class TokenAuthentication:
    """Bearer tokens, and the endpoint `/token` that gives them out. Safe to use from several threads.

    `users` maps names to passwords, `identity_tokens` maps refresh tokens to names. Without
    `anonymous` a request without credentials gets no token. Tokens live for `lifetime` seconds;
    `announced_lifetime` is what the answer claims (None: the truth, 0: nothing). `fields` names the
    members of the answer that carry the token. `realm` is the endpoint's URL when it is not
    `/token` on the registry itself; another ScriptedRegistry with the same object can serve it.
    """

    def __init__(
        self,
        users: Mapping[str, str] | None = None,
        *,
        identity_tokens: Mapping[str, str] | None = None,
        anonymous: bool = True,
        lifetime: float = 300.0,
        announced_lifetime: int | None = None,
        service: str = "scripted-registry",
        realm: str = "",
        fields: tuple[str, ...] = ("token", "access_token"),
    ) -> None:
        self.users = dict(users or {})
        self.identity_tokens = dict(identity_tokens or {})
        self.anonymous = anonymous
        self.lifetime = lifetime
        self.announced_lifetime = announced_lifetime
        self.service = service
        self.realm = realm
        self.fields = fields
        self._lock = threading.Lock()
        self._tokens: dict[str, _Token] = {}
        self._exchanges: list[TokenExchange] = []

    @property
    def exchanges(self) -> list[TokenExchange]:
        """The requests that the endpoint answered, oldest first."""
        with self._lock:
            return list(self._exchanges)

    def revoke(self) -> None:
        """Revoke every token that was given out."""
        with self._lock:
            self._tokens.clear()

    def accept(self, token: str, scope: str) -> None:
        """Accept `token` for `scope`, as if it had been given out: a registry token."""
        with self._lock:
            self._tokens[token] = _Token((scope,), time.monotonic() + self.lifetime)

    def refuse(self, request: RecordedRequest, scope: str, origin: str) -> Answer | None:
        """401 with a bearer challenge unless the request has a valid token for `scope`."""
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        with self._lock:
            token = self._tokens.get(value) if kind.lower() == "bearer" else None
        if token and token.expires > time.monotonic() and all(_covers(token.scopes, each) for each in scope.split()):
            return None
        challenge = f'Bearer realm="{self.realm or origin + "/token"}",service="{self.service}"'
        if scope:
            challenge += f',scope="{scope}"'
        if value:
            challenge += ',error="invalid_token"'
        return error_answer(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})

    def exchange(self, request: RecordedRequest) -> Answer:
        """Answer a request to the token endpoint: GET, or POST with a form."""
        if request.method == "POST":
            form = dict(parse_qsl(request.body.decode()))
            scopes, service = tuple(form.get("scope", "").split()), form.get("service", "")
            user = self._user_of_form(form)
        else:
            scopes, service = tuple(request.query.get("scope", "").split()), request.query.get("service", "")
            user = self._user_of_header(request.headers.get("authorization", ""))
        granted = user is not None
        with self._lock:
            self._exchanges.append(TokenExchange(request.method, user or "", scopes, service, granted, request.headers))
        if not granted:
            return error_answer(401, "UNAUTHORIZED", "incorrect username or password")
        return self._grant(scopes)

    def _grant(self, scopes: tuple[str, ...]) -> Answer:
        value = secrets.token_urlsafe(24)
        with self._lock:
            self._tokens[value] = _Token(scopes, time.monotonic() + self.lifetime)
        answer: dict[str, object] = dict.fromkeys(self.fields, value)
        announced = int(self.lifetime) if self.announced_lifetime is None else self.announced_lifetime
        if announced:
            answer["expires_in"] = announced
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _user_of_header(self, header: str) -> str | None:
        if not header:
            return "" if self.anonymous else None
        given = _parse_basic(header)
        return given[0] if given and self.users.get(given[0]) == given[1] else None

    def _user_of_form(self, form: Mapping[str, str]) -> str | None:
        if form.get("grant_type") == "refresh_token":
            return self.identity_tokens.get(form.get("refresh_token", ""))
        if form.get("grant_type") == "password":
            name = form.get("username", "")
            return name if self.users.get(name, None) == form.get("password", "") else None
        return None


def _covers(granted: tuple[str, ...], wanted: str) -> bool:
    """Return True if one of the granted scopes has all actions of the wanted one."""
    subject, _, actions = wanted.rpartition(":")
    for each in granted:
        granted_subject, _, granted_actions = each.rpartition(":")
        if granted_subject == subject and set(actions.split(",")) <= set(granted_actions.split(",")):
            return True
    return False
