"""Mirrors: asked first, skipped after failures, asked again later; and which secrets they never get."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from lazylayer.api.byteranges import ByteRange
from lazylayer.api.credentials import Credentials
from lazylayer.errors import AuthenticationError, NotFoundError, PluginError, UnavailableError, VerificationError
from lazylayer_resolver_registry import route
from lazylayer_testing.registry import BasicAuthentication, Fault, Gate, ScriptedRegistry, TokenAuthentication

from .client import REPOSITORY, Client, fetched


@pytest.fixture
def mirror(registry: ScriptedRegistry) -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry(registry.content) as mirror:
        yield mirror


@pytest.fixture
def second(registry: ScriptedRegistry) -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry(registry.content) as mirror:
        yield mirror


def mirrored(
    registry: ScriptedRegistry,
    *mirrors: ScriptedRegistry | str,
    header: dict[str, str] | None = None,
    **options: object,
) -> Client:
    urls = [each if isinstance(each, str) else each.url for each in mirrors]
    places = [{"url": url} for url in urls]
    resolver = {"hosts": [{"host": registry.host, "server": registry.url, "mirrors": places}]}
    client = Client(registry, resolver, **{"attempts": 2, "mirror_attempts": 1, **options})
    client.add_image()
    return client


@pytest.fixture
def mirrored_client(registry: ScriptedRegistry, mirror: ScriptedRegistry) -> Iterator[Client]:
    client = mirrored(registry, mirror)
    yield client
    client.plugin.lazylayer_close()


def counts(*registries: ScriptedRegistry) -> list[int]:
    return [len(each.requests) for each in registries]


def test_a_mirror_serves_all(mirrored_client: Client, registry: ScriptedRegistry, mirror: ScriptedRegistry) -> None:
    assert mirrored_client.image()
    source = mirrored_client.source()
    assert mirrored_client.read(source, (0, 1000), (5000, 6000))
    source.check()
    assert counts(registry, mirror) == [0, 4]
    assert source.describe() == f"{mirror.host}/{REPOSITORY} for {registry.host}"


def test_a_mirror_is_told_for_whom_it_stands(mirrored_client: Client, mirror: ScriptedRegistry) -> None:
    assert mirrored_client.image()
    assert {request.query.get("ns") for request in mirror.requests} == {mirrored_client.registry.host}


@pytest.mark.parametrize("status", [500, 401, 404, 403, 429])
def test_a_mirror_that_fails_is_passed_over(
    mirrored_client: Client, registry: ScriptedRegistry, mirror: ScriptedRegistry, status: int
) -> None:
    mirror.script(Fault(status=status), times=None)
    assert mirrored_client.image()
    source = mirrored_client.source()
    assert mirrored_client.read(source, (0, 1000))
    assert len(registry.requests) == 3
    asked = len(mirror.requests)
    assert mirrored_client.read(source, (1000, 2000))
    assert len(mirror.requests) == asked, "it rests"


def test_mirrors_are_asked_in_their_order(
    registry: ScriptedRegistry, mirror: ScriptedRegistry, second: ScriptedRegistry
) -> None:
    client = mirrored(registry, mirror, second)
    mirror.script(Fault(status=500), times=None)
    assert client.image()
    assert counts(registry, mirror, second) == [0, 1, 2]
    client.plugin.lazylayer_close()


def test_all_mirrors_may_fail(registry: ScriptedRegistry, mirror: ScriptedRegistry, second: ScriptedRegistry) -> None:
    client = mirrored(registry, mirror, second)
    for each in (mirror, second):
        each.script(Fault(status=500), times=None)
    assert client.image()
    assert counts(registry, mirror, second) == [2, 1, 1]
    client.plugin.lazylayer_close()


def test_a_mirror_that_does_not_exist_is_passed_over(registry: ScriptedRegistry) -> None:
    client = mirrored(registry, "http://mirror.invalid", "http://127.0.0.1:1")
    assert client.image()
    client.plugin.lazylayer_close()


def test_when_all_fail_the_error_tells_of_all(
    mirrored_client: Client, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    mirror.script(Fault(status=500), times=None)
    registry.script(Fault(status=404, message="gone"), times=None)
    with pytest.raises(NotFoundError, match=r"404.*before that.*500") as caught:
        mirrored_client.image()
    assert mirror.host in str(caught.value)
    with pytest.raises(NotFoundError):
        fetched(mirrored_client.source(), [ByteRange(0, 10)])


def test_a_read_goes_on_elsewhere_in_the_middle(
    mirrored_client: Client, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    mirror.script(Fault(truncate_after=3000), path="*/blobs/*", times=None)
    source = mirrored_client.source()
    assert mirrored_client.read(source, (1000, 11_000))
    (request,) = registry.requests
    assert request.ranges[0][0] > 1000, "what the mirror sent is not fetched again"


def test_reads_go_on_when_the_origin_goes_down_and_the_mirror_comes_back(
    mirrored_client: Client, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    source = mirrored_client.source()
    mirror.script(Fault(reset_after=-1), times=None)
    assert mirrored_client.read(source, (0, 1000))
    mirror.forget_rules()
    registry.script(Fault(reset_after=-1), times=None)
    assert mirrored_client.read(source, (1000, 2000))
    source.check()


def test_a_mirror_is_tried_again_later(registry: ScriptedRegistry, mirror: ScriptedRegistry) -> None:
    client = mirrored(registry, mirror, mirror_rest=60)
    source = client.source()
    mirror.script(Fault(status=500))
    assert client.read(source, (0, 1000))
    assert client.read(source, (0, 1000))
    assert counts(registry, mirror) == [2, 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(route, "time", Later(61))
        assert client.read(source, (0, 1000))
    assert counts(registry, mirror) == [2, 2]
    client.plugin.lazylayer_close()


class Later:
    """A clock that a test can advance."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def monotonic(self) -> float:
        import time

        return time.monotonic() + self._seconds


def test_what_a_mirror_lacks_does_not_count_against_the_rest(
    mirrored_client: Client, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    mirror.script(Fault(status=404), path=f"*/{mirrored_client.layer.digest}", times=None)
    assert mirrored_client.read(mirrored_client.source(), (0, 1000))
    assert mirrored_client.image()
    assert counts(registry, mirror) == [1, 3]


def test_a_mirror_that_lies_is_passed_over(
    mirrored_client: Client, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    mirror.script(Fault(rewrite=lambda body: body + b" "), path="*/blobs/*", times=None)
    mirror.script(Fault(body=b"<html>log in to the network</html>"), path="*/manifests/*", times=None)
    assert mirrored_client.image()
    assert len(registry.requests) == 2


def test_a_mirror_may_be_trusted_with_pulling_only(registry: ScriptedRegistry, mirror: ScriptedRegistry) -> None:
    places = [{"url": mirror.url, "capabilities": ["pull"]}]
    client = Client(registry, {"hosts": [{"host": registry.host, "mirrors": places}]})
    client.add_image()
    image = client.image()
    assert [request.kind for request in registry.requests] == ["manifest"], "a tag is resolved by the registry alone"
    assert [request.kind for request in mirror.requests] == ["blob"]
    assert client.image(image.digest)
    assert counts(registry, mirror) == [1, 3]
    client.plugin.lazylayer_close()


def test_nothing_that_may_be_asked_says_so(registry: ScriptedRegistry) -> None:
    client = Client(registry, {"hosts": [{"host": registry.host, "capabilities": ["push"]}]})
    with pytest.raises(UnavailableError, match="no host has the capability resolve"):
        client.image()


def test_images_are_pushed_to_the_registry_itself(
    mirrored_client: Client, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    import io

    from lazylayer.api.oci import Descriptor, parse_reference, sha256_digest

    reference = parse_reference(registry.reference(REPOSITORY, "new"))
    store = mirrored_client.plugin.lazylayer_open_store(reference, mirrored_client.keychain)
    assert store is not None
    store.put_blob(Descriptor("x/y", sha256_digest(b"data"), 4), io.BytesIO(b"data"))
    assert mirror.requests == []


# --- redirects -----------------------------------------------------------------------------------


def test_a_mirror_s_redirect_is_followed(
    mirrored_client: Client, registry: ScriptedRegistry, mirror: ScriptedRegistry, storage: ScriptedRegistry
) -> None:
    mirror.redirect_blobs(storage)
    source = mirrored_client.source()
    assert mirrored_client.read(source, (0, 1000))
    assert mirrored_client.read(source, (1000, 2000))
    assert counts(registry, mirror, storage) == [0, 1, 2]


def test_a_mirror_s_bad_redirect_is_passed_over(
    mirrored_client: Client, registry: ScriptedRegistry, mirror: ScriptedRegistry, storage: ScriptedRegistry
) -> None:
    mirror.redirect_blobs(storage)
    storage.script(Fault(status=500), times=None)
    assert mirrored_client.read(mirrored_client.source(), (0, 1000))
    assert len(registry.requests) == 1


def test_headers_are_for_their_mirror_alone(
    registry: ScriptedRegistry, mirror: ScriptedRegistry, second: ScriptedRegistry, storage: ScriptedRegistry
) -> None:
    places = [{"url": mirror.url, "header": {"X-Secret": "one"}}, {"url": second.url, "header": {"X-Secret": "two"}}]
    hosts = [{"host": registry.host, "mirrors": places, "header": {"X-Origin": "three"}}]
    client = Client(registry, {"hosts": hosts}, mirror_attempts=1)
    mirror.redirect_blobs(storage)
    storage.script(Fault(status=500), times=1)
    second.script(Fault(status=500), times=1)
    assert client.read(client.source(), (0, 1000))
    assert {request.headers.get("x-secret") for request in mirror.requests} == {"one"}
    assert {request.headers.get("x-secret") for request in second.requests} == {"two"}
    for other in (registry, storage):
        assert other.requests
        assert not any("x-secret" in request.headers for request in other.requests)
    assert {request.headers.get("x-origin") for request in registry.requests} == {"three"}
    client.plugin.lazylayer_close()


# --- credentials ---------------------------------------------------------------------------------


def test_each_place_has_its_own_credentials(
    mirrored_client: Client, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    mirror.authentication = BasicAuthentication({"robot": "for-the-mirror"})
    registry.authentication = BasicAuthentication({"robot": "for-the-registry"})
    logins = {mirror.host: "for-the-mirror", registry.host: "for-the-registry"}

    def keychain(host: str) -> Credentials:
        return Credentials("robot", logins[host], source="a test")

    mirrored_client.keychain = keychain  # type: ignore[method-assign]
    assert mirrored_client.image()
    mirror.script(Fault(status=500), times=None)
    assert mirrored_client.read(mirrored_client.source(), (0, 1000))
    sent = {
        each.host: {request.headers.get("authorization") for request in each.requests} for each in (mirror, registry)
    }
    assert not sent[mirror.host] & sent[registry.host] - {None}


def test_a_broken_keychain_is_no_reason_to_go_elsewhere(
    mirrored_client: Client, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    mirror.authentication = BasicAuthentication({"robot": "secret"})

    def keychain(host: str) -> Credentials:
        raise PluginError("the vault is closed", plugin="keychain_vault")

    mirrored_client.keychain = keychain  # type: ignore[method-assign]
    with pytest.raises(PluginError, match="vault is closed"):
        mirrored_client.image()
    assert registry.requests == []


def test_a_mirror_s_own_name_for_the_repository_is_asked_for(registry: ScriptedRegistry) -> None:
    tokens = TokenAuthentication()
    registry.script(
        Fault(
            status=401,
            headers={"WWW-Authenticate": f'Bearer realm="{registry.url}/token",scope="repository:cache/image:pull"'},
        ),
        path="/v2/*",
    )
    registry.authentication = tokens
    client = Client(registry)
    with pytest.raises(AuthenticationError):
        client.image()
    assert tokens.exchanges[0].scopes == ("repository:cache/image:pull",)
    client.plugin.lazylayer_close()


def test_a_reader_who_gives_up_ends_the_request(
    mirrored_client: Client, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    gate = Gate()
    mirror.script(Fault(stall_after=1000, stall_until=gate), path="*/blobs/*")
    pieces = mirrored_client.source().fetch([ByteRange(0, 300_000)])
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    gate.release()
    assert registry.requests == []


def test_a_mirror_that_stays_away_is_asked_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(route, "time", SimpleNamespace(monotonic=lambda: clock.now))
    cooldowns = route.Cooldowns(30)
    spans = []
    for _ in range(7):
        spans.append(cooldowns.begin("mirror"))
        assert cooldowns.active("mirror")
        assert not cooldowns.active("other")
        clock.now += spans[-1]
        assert not cooldowns.active("mirror")
    assert spans == [30, 60, 120, 240, 480, 600, 600]
    cooldowns.clear("mirror", "other")
    assert cooldowns.begin("mirror") == 30


def test_an_answer_that_was_under_way_does_not_take_a_doubt_back(
    mirrored_client: Client, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    source = mirrored_client.source()
    under_way = source.fetch([ByteRange(0, 300_000)])
    next(under_way)
    assert mirrored_client.read(source, (0, 1000))
    assert source.doubt(VerificationError("these bytes are wrong"))
    for _ in under_way:
        pass
    mirror.forget_requests()
    assert mirrored_client.read(source, (1000, 2000), (3000, 4000))
    assert counts(registry, mirror) == [1, 0]
