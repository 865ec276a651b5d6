"""Images by tag and digest, verified."""

from __future__ import annotations

import pytest

from lazylayer.api.oci import MAX_MANIFEST_SIZE, Platform, parse_reference
from lazylayer.errors import FormatError, NotFoundError, UnavailableError, VerificationError
from lazylayer_testing.registry import Fault, ImageLayer, ScriptedRegistry

from .client import PLATFORM, REPOSITORY, Client


def test_an_image_costs_two_requests(client: Client, registry: ScriptedRegistry) -> None:
    client.add_image(layers=3)
    image = client.image()
    assert len(image.manifest.layers) == 3
    assert [request.kind for request in registry.requests] == ["manifest", "blob"]


def test_an_image_by_digest_is_the_same(client: Client) -> None:
    client.add_image()
    by_tag = client.image()
    assert client.image(by_tag.digest).manifest == by_tag.manifest


def test_other_kinds_of_references_are_left_to_others(client: Client) -> None:
    reference = parse_reference("oci:/images/app:1")
    assert client.plugin.lazylayer_resolve_image(reference, PLATFORM, client.keychain) is None
    assert client.plugin.lazylayer_resolve_blob(reference, client.layer, client.keychain) is None
    assert client.plugin.lazylayer_open_store(reference, client.keychain) is None


def test_what_does_not_exist_is_not_found_at_once(client: Client, registry: ScriptedRegistry) -> None:
    with pytest.raises(NotFoundError, match="404: MANIFEST_UNKNOWN"):
        client.image("nothing")
    assert len(registry.requests) == 1


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
def test_a_damaged_answer_is_refused(client: Client, registry: ScriptedRegistry, kind: str) -> None:
    client.add_image()
    registry.script(Fault(rewrite=lambda body: body.replace(b":", b" ", 1)), path=f"*/{kind}/*")
    with pytest.raises(VerificationError, match="expected digest sha256:"):
        client.image()


def test_an_endless_answer_is_cut_off(client: Client, registry: ScriptedRegistry) -> None:
    client.add_image()
    registry.script(Fault(body=b" " * (MAX_MANIFEST_SIZE + 1)), path="*/manifests/*")
    with pytest.raises(UnavailableError, match="more than"):
        client.image()


def test_what_is_no_manifest_says_so(client: Client, registry: ScriptedRegistry) -> None:
    registry.content.add_manifest(REPOSITORY, b"{}", "application/vnd.oci.image.manifest.v1+json", "odd")
    with pytest.raises(FormatError, match="neither a manifest nor an index"):
        client.image("odd")


def test_the_platform_chooses_in_an_index(client: Client, registry: ScriptedRegistry) -> None:
    images = {
        Platform(architecture, "linux"): registry.content.add_image(
            REPOSITORY, architecture, [ImageLayer(architecture.encode(), diff_id="x")]
        )
        for architecture in ("amd64", "arm64")
    }
    registry.content.add_index(REPOSITORY, "many", [(image, platform) for platform, image in images.items()])
    assert client.image("many").digest == images[PLATFORM].digest
    reference = parse_reference(registry.reference(REPOSITORY, "many"))
    with pytest.raises(NotFoundError, match="no manifest for linux/s390x; there is linux/amd64, linux/arm64"):
        client.plugin.lazylayer_resolve_image(reference, Platform("s390x", "linux"), client.keychain)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(client: Client, registry: ScriptedRegistry, status: int) -> None:
    client.add_image()
    registry.script(Fault(status=status), path="*/manifests/*", times=2)
    assert client.image()
    assert [request.status for request in registry.requests_of("manifest")] == [status, status, 200]


def test_the_fourth_attempt_may_be_the_one(client: Client, registry: ScriptedRegistry) -> None:
    client.add_image()
    for skipped, fault in enumerate((Fault(reset_after=-1), Fault(status=429), Fault(status=503))):
        registry.script(fault, path="*/manifests/*", skip=skipped)
    assert client.image()
    assert [request.status for request in registry.requests_of("manifest")] == [0, 429, 503, 200]


def test_patience_ends(registry: ScriptedRegistry) -> None:
    client = Client(registry, attempts=2)
    client.add_image()
    registry.script(Fault(status=503), path="*/manifests/*", times=None)
    with pytest.raises(UnavailableError, match="answered 503"):
        client.image()
    assert len(registry.requests) == 2
    client.plugin.lazylayer_close()


def test_a_wish_to_wait_is_heard(client: Client, registry: ScriptedRegistry) -> None:
    client.add_image()
    registry.script(Fault(status=429, headers={"Retry-After": "1"}), path="*/manifests/*")
    assert client.image()
    first, second = registry.requests_of("manifest")
    assert second.started - first.started >= 1


def test_a_registry_that_is_not_there_says_where(registry: ScriptedRegistry) -> None:
    client = Client(registry, attempts=1)
    reference = parse_reference("127.0.0.1:1/tests/image:1")
    with pytest.raises(UnavailableError, match=r"http://127\.0\.0\.1:1/v2/tests/image/manifests/1"):
        client.plugin.lazylayer_resolve_image(reference, PLATFORM, client.keychain)
    client.plugin.lazylayer_close()
