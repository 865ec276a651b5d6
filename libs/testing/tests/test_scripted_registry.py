"""The scripted registry does what registries do, tells what it was asked, and fails as told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lazylayer.api.oci import Descriptor, MediaType, Platform, sha256_digest
from lazylayer_testing.registry import (
    BasicAuthentication,
    Fault,
    Gate,
    ImageLayer,
    RegistryContent,
    ScriptedRegistry,
    TokenAuthentication,
)
from lazylayer_testing.resolver.images import LayoutImage, write_image, write_index

DATA = bytes(range(256)) * 40
NAME = "team/app"


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as registry:
        yield registry


@pytest.fixture
def blob(registry: ScriptedRegistry) -> Descriptor:
    return registry.content.add_blob(NAME, DATA)


@pytest.fixture
def client(registry: ScriptedRegistry) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=registry.url, timeout=10, trust_env=False) as client:
        yield client


def path(blob: Descriptor) -> str:
    return f"/v2/{NAME}/blobs/{blob.digest}"


# --- what registries do ----------------------------------------------------------------------------


def test_images_are_served_by_tag_and_digest(registry: ScriptedRegistry, client: httpx.Client) -> None:
    image = registry.content.add_image(NAME, "1", [ImageLayer(DATA)], {"author": "ann"})
    by_tag = client.get(f"/v2/{NAME}/manifests/1")
    assert by_tag.headers["Content-Type"] == MediaType.OCI_MANIFEST
    assert by_tag.headers["Docker-Content-Digest"] == image.digest == sha256_digest(by_tag.content)
    assert client.get(f"/v2/{NAME}/manifests/{image.digest}").content == by_tag.content
    config = client.get(f"/v2/{NAME}/blobs/{by_tag.json()['config']['digest']}").json()
    assert config["author"] == "ann"
    assert config["rootfs"]["diff_ids"] == [sha256_digest(DATA)]
    assert client.get(f"/v2/{NAME}/tags/list").json() == {"name": NAME, "tags": ["1"]}


def test_a_blob_is_only_seen_in_its_repository(client: httpx.Client, blob: Descriptor) -> None:
    assert client.get(path(blob)).content == DATA
    refused = client.get(f"/v2/other/blobs/{blob.digest}")
    assert refused.status_code == 404
    assert refused.json()["errors"][0]["code"] == "BLOB_UNKNOWN"


def test_layouts_are_loaded(registry: ScriptedRegistry, client: httpx.Client, tmp_path: Path) -> None:
    image = LayoutImage.random(1, 100)
    write_image(tmp_path / "one", "name", image)
    loaded = registry.content.add_layout(tmp_path / "one", NAME, "tag")
    assert client.get(f"/v2/{NAME}/manifests/tag").content == image.manifest
    assert loaded.digest == image.digest
    many = [LayoutImage.random(2, 10, platform=Platform(each, "linux")) for each in ("amd64", "arm64")]
    write_index(tmp_path / "many", "many", many)
    registry.content.add_layout(tmp_path / "many", NAME, "many")
    for each in many:
        assert client.get(f"/v2/{NAME}/manifests/{each.digest}").content == each.manifest
    with pytest.raises(ValueError, match="0 images fit"):
        registry.content.add_layout(tmp_path / "one", NAME, "tag", "another")


@pytest.mark.parametrize(
    ("header", "status", "body"),
    [
        ("bytes=0-0", 206, DATA[:1]),
        ("bytes=10-19", 206, DATA[10:20]),
        ("bytes=-5", 206, DATA[-5:]),
        (f"bytes={len(DATA) - 3}-", 206, DATA[-3:]),
        ("bytes=0-999999", 206, DATA),
        ("items=0-1", 200, DATA),
        ("bytes=5-2", 200, DATA),
        ("bytes=999999-", 416, None),
    ],
)
def test_ranges(client: httpx.Client, blob: Descriptor, header: str, status: int, body: bytes | None) -> None:
    answer = client.get(path(blob), headers={"Range": header})
    assert answer.status_code == status
    assert body is None or answer.content == body


def test_several_ranges_come_in_parts(client: httpx.Client, blob: Descriptor) -> None:
    answer = client.get(path(blob), headers={"Range": "bytes=0-1,10-12"})
    assert answer.status_code == 206
    boundary = answer.headers["Content-Type"].partition("boundary=")[2].encode()
    parts = [part.partition(b"\r\n\r\n") for part in answer.content.split(b"--" + boundary)[1:-1]]
    assert [body.removesuffix(b"\r\n") for _, _, body in parts] == [DATA[:2], DATA[10:13]]
    assert f"bytes 10-12/{len(DATA)}".encode() in parts[1][0]


def test_pushing(registry: ScriptedRegistry, client: httpx.Client) -> None:
    place = client.post(f"/v2/{NAME}/blobs/uploads/").headers["Location"]
    assert client.patch(place, content=DATA[:100]).headers["Range"] == "0-99"
    wrong = client.patch(place, content=b"x", headers={"Content-Range": "5-5"})
    assert wrong.status_code == 416
    client.patch(place, content=DATA[100:], headers={"Content-Range": f"100-{len(DATA) - 1}"})
    digest = sha256_digest(DATA)
    assert client.put(place, params={"digest": digest}).status_code == 201
    assert registry.content.blob(NAME, digest) == DATA
    mounted = client.post("/v2/other/blobs/uploads/", params={"mount": digest, "from": NAME})
    assert mounted.status_code == 201
    place = client.post(f"/v2/{NAME}/blobs/uploads/").headers["Location"]
    assert client.put(place, params={"digest": digest}, content=b"not it").status_code == 400
    missing = client.put(f"/v2/{NAME}/manifests/1", json={"config": {"digest": sha256_digest(b"missing")}})
    assert missing.status_code in (400, 404)


# --- what is recorded ------------------------------------------------------------------------------


def test_requests_are_recorded_in_order(registry: ScriptedRegistry, client: httpx.Client, blob: Descriptor) -> None:
    client.get("/v2/")
    client.get(path(blob), headers={"Range": "bytes=0-9, 20-29", "X-Who": "me"})
    client.head(path(blob))
    assert [each.kind for each in registry.requests] == ["other", "blob", "blob"]
    second = registry.requests[1]
    assert second.ranges == [(0, 10), (20, 30)]
    assert (second.headers["x-who"], second.status, second.concurrency) == ("me", 206, 1)
    assert registry.blob_bytes_sent == second.sent
    assert registry.requests[2].sent == 0
    assert registry.connections == 1
    registry.forget_requests()
    assert registry.requests == []


def test_requests_at_the_same_time_are_counted(registry: ScriptedRegistry, blob: Descriptor) -> None:
    gate = Gate()
    registry.script(Fault(hold=gate), times=None)
    url = registry.url + path(blob)
    threads = [threading.Thread(target=httpx.get, args=(url,), kwargs={"trust_env": False}) for _ in range(3)]
    for each in threads:
        each.start()
    gate.wait_for(3)
    gate.release()
    for each in threads:
        each.join()
    assert sorted(each.concurrency for each in registry.requests) == [1, 2, 3]


# --- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        (Fault(status=503, headers={"Retry-After": "3"}), 503, None),
        (Fault(body=b"instead"), 206, b"instead"),
        (Fault(ignore_range=True), 200, DATA),
        (Fault(corrupt_at=11), 206, bytes([DATA[10], DATA[11] ^ 0xFF]) + DATA[12:20]),
        (Fault(rewrite=bytes.upper), 206, DATA[10:20].upper()),
        (Fault(drip=(3, 0.001)), 206, DATA[10:20]),
        (Fault(without_length=True), 206, DATA[10:20]),
        (Fault(delay=0.01), 206, DATA[10:20]),
        (Fault(stall_after=5, stall_seconds=0.01), 206, DATA[10:20]),
    ],
)
def test_answers_are_spoilt(
    registry: ScriptedRegistry, client: httpx.Client, blob: Descriptor, fault: Fault, status: int, body: bytes | None
) -> None:
    registry.script(fault)
    answer = client.get(path(blob), headers={"Range": "bytes=10-19"})
    assert answer.status_code == status
    assert body is None or answer.content == body
    assert set(fault.headers.items()) <= {(name.title(), value) for name, value in answer.headers.items()}
    assert client.get(path(blob)).content == DATA, "once"


@pytest.mark.parametrize("fault", [Fault(truncate_after=5), Fault(reset_after=5), Fault(reset_after=-1)])
def test_connections_break(registry: ScriptedRegistry, client: httpx.Client, blob: Descriptor, fault: Fault) -> None:
    registry.script(fault)
    with pytest.raises(httpx.TransportError):
        client.get(path(blob))
    assert client.get(path(blob)).content == DATA


@pytest.mark.parametrize(
    ("fault", "content_range"),
    [(Fault(first_range_only=True), "bytes 0-1/10240"), (Fault(one_covering_range=True), "bytes 0-12/10240")],
)
def test_several_ranges_are_answered_with_one(
    registry: ScriptedRegistry, client: httpx.Client, blob: Descriptor, fault: Fault, content_range: str
) -> None:
    registry.script(fault)
    answer = client.get(path(blob), headers={"Range": "bytes=0-1,10-12"})
    assert answer.headers["Content-Range"] == content_range


def test_rules_choose_their_requests(registry: ScriptedRegistry, client: httpx.Client, blob: Descriptor) -> None:
    rule = registry.script(Fault(status=500), path="*/blobs/*", method="GET", skip=1, times=2)
    registry.script(Fault(status=418), when=lambda request: "x-tea" in request.headers, times=None)
    statuses = [client.get(path(blob)).status_code for _ in range(4)]
    assert statuses == [200, 500, 500, 200]
    assert client.head(path(blob)).status_code == 200
    assert client.get("/v2/", headers={"X-Tea": "yes"}).status_code == 418
    assert rule.matched == 4
    registry.forget_rules()
    assert client.get("/v2/", headers={"X-Tea": "yes"}).status_code == 200


# --- doors -----------------------------------------------------------------------------------------


def test_basic_credentials(registry: ScriptedRegistry, client: httpx.Client, blob: Descriptor) -> None:
    registry.authentication = BasicAuthentication({"ann": "secret"})
    assert client.get(path(blob)).headers["WWW-Authenticate"].startswith("Basic ")
    assert client.get(path(blob), auth=("ann", "wrong")).status_code == 401
    assert client.get(path(blob), auth=("ann", "secret")).content == DATA


def exchange(client: httpx.Client, **options: Any) -> httpx.Response:
    return client.get("/token", params={"service": "x", "scope": f"repository:{NAME}:pull"}, **options)


def test_tokens(registry: ScriptedRegistry, client: httpx.Client, blob: Descriptor) -> None:
    tokens = TokenAuthentication({"ann": "secret"}, identity_tokens={"refresh": "ann"}, anonymous=False)
    registry.authentication = tokens
    challenge = client.get(path(blob)).headers["WWW-Authenticate"]
    assert f'realm="{registry.url}/token"' in challenge
    assert f'scope="repository:{NAME}:pull"' in challenge
    assert exchange(client).status_code == 401
    token = exchange(client, auth=("ann", "secret")).json()["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert client.get(path(blob), headers=bearer).content == DATA
    assert client.post(f"/v2/{NAME}/blobs/uploads/", headers=bearer).status_code == 401, "it may only pull"
    form = {"grant_type": "refresh_token", "refresh_token": "refresh", "scope": f"repository:{NAME}:pull"}
    assert client.post("/token", data=form).status_code == 200
    assert [(each.method, each.user, each.granted) for each in tokens.exchanges] == [
        ("GET", "", False),
        ("GET", "ann", True),
        ("POST", "ann", True),
    ]
    tokens.revoke()
    assert client.get(path(blob), headers=bearer).status_code == 401


def test_tokens_expire(registry: ScriptedRegistry, client: httpx.Client, blob: Descriptor) -> None:
    registry.authentication = TokenAuthentication(lifetime=0.0, announced_lifetime=300)
    answer = exchange(client).json()
    assert answer["expires_in"] == 300
    refused = client.get(path(blob), headers={"Authorization": f"Bearer {answer['token']}"})
    assert refused.status_code == 401


def test_redirects_are_signed_and_expire(registry: ScriptedRegistry, client: httpx.Client, blob: Descriptor) -> None:
    with ScriptedRegistry(RegistryContent()) as storage:
        signer = registry.redirect_blobs(storage)
        target = client.get(path(blob)).headers["Location"]
        assert target.startswith(storage.url)
        assert client.get(target).content == DATA
        assert client.get(target.partition("?")[0]).status_code == 403
        signer.expire()
        assert client.get(target).status_code == 403
        assert {each.kind for each in storage.requests} == {"storage"}
        late = registry.redirect_blobs(storage, lifetime=-1)
        assert late is not signer
        assert client.get(client.get(path(blob)).headers["Location"]).status_code == 403


def test_a_client_that_goes_away_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    with ScriptedRegistry() as registry:
        blob = registry.content.add_blob(NAME, bytes(1 << 20))
        registry.script(Fault(drip=(1000, 0.001)))
        address, _, port = registry.host.rpartition(":")
        with socket.create_connection((address, int(port))) as client:
            client.sendall(f"GET {path(blob)} HTTP/1.1\r\nHost: it\r\n\r\n".encode())
            client.recv(1)
    assert capfd.readouterr().err == ""
