"""Documents that cannot be decoded: a bad answer of one host, after which the next one is asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lazylayer.api.credentials import Credentials
from lazylayer.errors import FormatError, UnavailableError
from lazylayer_testing.registry import Fault, ScriptedRegistry, TokenAuthentication

from .client import Client

HOSTILE = {
    "not UTF-8": b'{"errors":[{"code":"\xff\xfe","message":"\xff"}],"mediaType":"\xff","token":"\xff"}',
    "nested": b'{"errors":' + b'[{"code":' * 2000 + b"1" + b"}]" * 2000 + b"}",
    "nested manifest": b'{"layers":[],"config":' + b'{"a":' * 2000 + b"1" + b"}" * 2001,
    "not JSON": b"\x00\x01\x02<html>",
}


@pytest.fixture(params=HOSTILE.values(), ids=list(HOSTILE))
def body(request: pytest.FixtureRequest) -> bytes:
    assert isinstance(request.param, bytes)
    return request.param


@pytest.fixture
def mirror(registry: ScriptedRegistry) -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry(registry.content) as mirror:
        yield mirror


@pytest.fixture
def mirrored(registry: ScriptedRegistry, mirror: ScriptedRegistry) -> Iterator[Client]:
    hosts = [{"host": registry.host, "server": registry.url, "mirrors": [{"url": mirror.url}]}]
    client = Client(registry, {"hosts": hosts}, attempts=2, mirror_attempts=1)
    client.add_image()
    yield client
    client.plugin.lazylayer_close()


@pytest.mark.parametrize("status", [200, 400, 500])
def test_the_next_host_is_asked_after_a_bad_manifest(
    mirrored: Client, mirror: ScriptedRegistry, body: bytes, status: int
) -> None:
    fault = Fault(body=body, headers={"Docker-Content-Digest": "x"}, status=None if status == 200 else status)
    mirror.script(fault, path="*/manifests/*", times=None)
    assert mirrored.image().manifest.layers


def test_the_next_host_is_asked_after_a_bad_error_for_a_blob(
    mirrored: Client, mirror: ScriptedRegistry, body: bytes
) -> None:
    mirror.script(Fault(body=body, status=500), path="*/blobs/*", times=None)
    assert mirrored.read(mirrored.source(), (0, 1000))


def test_a_bad_error_is_retried(client: Client, registry: ScriptedRegistry, body: bytes) -> None:
    client.add_image()
    registry.script(Fault(body=body, status=503), path="*/manifests/*")
    assert client.image().manifest.layers
    assert [request.status for request in registry.requests_of("manifest")] == [503, 200]


def test_a_bad_manifest_is_a_format_error(client: Client, registry: ScriptedRegistry, body: bytes) -> None:
    client.add_image()
    registry.script(Fault(body=body, headers={"Docker-Content-Digest": "x"}), path="*/manifests/*", times=None)
    with pytest.raises(FormatError):
        client.image()


def test_a_bad_token_is_unavailable(client: Client, registry: ScriptedRegistry, body: bytes) -> None:
    client.add_image()
    registry.authentication = TokenAuthentication({"robot": "secret"})
    client.credentials = Credentials("robot", "secret")
    registry.script(Fault(body=body), path="*/token*", times=None)
    with pytest.raises(UnavailableError, match="invalid answer"):
        client.image()


@pytest.mark.parametrize("path", ["*/manifests/*", "*/token*"])
def test_an_error_text_of_a_registry_is_one_clean_line(client: Client, registry: ScriptedRegistry, path: str) -> None:
    client.add_image()
    if "token" in path:
        registry.authentication = TokenAuthentication({"robot": "secret"})
    message = "\x1b[2Jhijacked\npassword=hunter2 https://ann:hunter2@other.test/?sig=hunter2"
    registry.script(Fault(status=418, message=message), path=path, times=None)
    with pytest.raises(UnavailableError, match="hijacked") as caught:
        client.image()
    assert str(caught.value).isprintable()
    assert "hunter2" not in str(caught.value)
