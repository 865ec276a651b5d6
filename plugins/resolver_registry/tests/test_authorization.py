"""Credentials and tokens: few exchanges, renewal in time, and no credentials for other hosts."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.credentials import Credentials
from lazylayer.api.oci import Descriptor
from lazylayer.errors import AuthenticationError, UnavailableError
from lazylayer_resolver_registry import authorization
from lazylayer_testing.registry import BasicAuthentication, Fault, ScriptedRegistry, TokenAuthentication

from .client import REPOSITORY, Client, fetched

ROBOT = Credentials("robot", "s3cret-password", source="a test")


@pytest.fixture
def tokens(registry: ScriptedRegistry) -> TokenAuthentication:
    tokens = TokenAuthentication({"robot": ROBOT.password}, identity_tokens={"refresh-me": "robot"}, anonymous=False)
    registry.authentication = tokens
    return tokens


def test_basic_credentials_open_the_door(client: Client, registry: ScriptedRegistry) -> None:
    registry.authentication = BasicAuthentication({"robot": ROBOT.password})
    client.credentials = ROBOT
    client.add_image()
    assert client.image()
    assert client.asked == [registry.host]


def test_no_credentials_say_what_to_do(client: Client, registry: ScriptedRegistry) -> None:
    registry.authentication = BasicAuthentication({"robot": ROBOT.password})
    with pytest.raises(AuthenticationError, match="docker login"):
        client.image()


def test_wrong_credentials_are_tried_once(client: Client, registry: ScriptedRegistry) -> None:
    registry.authentication = BasicAuthentication({"robot": "another"})
    client.credentials = ROBOT
    with pytest.raises(AuthenticationError, match="also with new credentials") as caught:
        client.image()
    assert 'it refused user "robot" (a test); log in again with `docker login' in str(caught.value)
    assert ROBOT.password not in str(caught.value)
    assert len(registry.requests) == 2


def test_an_anonymous_token_is_enough_where_it_is(client: Client, registry: ScriptedRegistry) -> None:
    registry.authentication = TokenAuthentication()
    client.add_image()
    assert client.image()


def test_all_layers_of_an_image_share_one_exchange(client: Client, tokens: TokenAuthentication) -> None:
    client.credentials = ROBOT
    client.add_image(layers=8)
    for descriptor in client.image().manifest.layers:
        source = client.source(descriptor)
        assert fetched(source, [ByteRange(0, descriptor.size)])
    assert len(tokens.exchanges) == 1
    assert tokens.exchanges[0].scopes == (f"repository:{REPOSITORY}:pull",)


def test_an_identity_token_is_exchanged_by_post(client: Client, tokens: TokenAuthentication) -> None:
    client.credentials = Credentials(identity_token="refresh-me")
    client.add_image()
    assert client.image()
    assert [each.method for each in tokens.exchanges] == ["POST"]


def test_a_registry_token_is_used_as_it_is(client: Client, tokens: TokenAuthentication) -> None:
    tokens.accept("ready-made", f"repository:{REPOSITORY}:pull")
    client.credentials = Credentials(registry_token="ready-made")
    client.add_image()
    assert client.image()
    assert tokens.exchanges == []


def test_a_token_that_is_revoked_in_the_middle_is_replaced(client: Client, tokens: TokenAuthentication) -> None:
    client.credentials = ROBOT
    source = client.source()
    assert client.read(source, (0, 1000))
    tokens.revoke()
    assert client.read(source, (1000, 2000))
    assert len(tokens.exchanges) == 2


def test_credentials_are_asked_for_again_when_they_change(client: Client, tokens: TokenAuthentication) -> None:
    client.credentials = ROBOT
    source = client.source()
    assert client.read(source, (0, 1000))
    tokens.users = {"robot": "rotated"}
    tokens.revoke()
    client.credentials = Credentials("robot", "rotated")
    assert client.read(source, (1000, 2000))


def test_an_expiring_token_is_renewed_before_it_is_refused(
    client: Client, registry: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.authentication = TokenAuthentication(announced_lifetime=100)
    source = client.source()
    assert client.read(source, (0, 1000))
    registry.forget_requests()
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + 95)
    monkeypatch.setattr(authorization, "time", later)
    assert client.read(source, (1000, 2000))
    assert [request.kind for request in registry.requests] == ["token", "blob"], "no refusal in between"


def test_a_refused_exchange_names_the_credentials_and_not_the_secret(
    client: Client, tokens: TokenAuthentication
) -> None:
    client.credentials = Credentials("robot", "wrong-secret", source="the kitchen drawer")
    with pytest.raises(AuthenticationError, match=r'refused user "robot" \(the kitchen drawer\)') as caught:
        client.image()
    assert "wrong-secret" not in str(caught.value)


@pytest.mark.parametrize("realm", ["file:///etc/passwd", "gopher://x/", "https://", "not a url", ""])
def test_a_realm_that_leads_astray_is_refused(client: Client, registry: ScriptedRegistry, realm: str) -> None:
    registry.script(
        Fault(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}), path="*", times=None
    )
    client.credentials = ROBOT
    with pytest.raises((AuthenticationError, UnavailableError)):
        client.image()


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"token": "line\\nbreak"}', b'{"token": 3}', b"x" * 2_000_000])
def test_an_odd_token_answer_is_refused(
    client: Client, registry: ScriptedRegistry, tokens: TokenAuthentication, body: bytes
) -> None:
    registry.script(Fault(body=body), path="/token", times=None)
    client.credentials = ROBOT
    with pytest.raises(UnavailableError, match=r"token"):
        client.image()


def test_a_token_server_that_hiccups_is_asked_again(
    client: Client, registry: ScriptedRegistry, tokens: TokenAuthentication
) -> None:
    registry.script(Fault(status=503), path="/token", times=2)
    client.credentials = ROBOT
    client.add_image()
    assert client.image()


def test_a_refusal_without_a_challenge_says_so(client: Client, registry: ScriptedRegistry) -> None:
    registry.script(Fault(status=403), path="*", times=None)
    with pytest.raises(AuthenticationError, match="without a usable WWW-Authenticate"):
        fetched(client.source(Descriptor("", client.layer.digest, 300_000)), [ByteRange(0, 1)])
