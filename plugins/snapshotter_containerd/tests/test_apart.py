"""Snapshots that must not be taken for each other: of other layers, and of other names for the socket."""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

import pytest

from lazylayer.api.labels import MANIFEST_DIGEST, TOC_DIGEST
from lazylayer.api.oci import sha256_digest

from .conftest import CHECKED, FALLBACK, REF, layer_labels

# --- layers that claim to be others --------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        layer_labels("base"),
        {**layer_labels("base"), "containerd.io/snapshot/remote/stargz.skipverify": "1"},
        layer_labels("attacker", toc="other"),
        {key: value for key, value in layer_labels("attacker").items() if key != TOC_DIGEST},
        {},
    ],
    ids=["blob", "unverified", "table", "no table", "no labels"],
)
def test_a_layer_that_claims_the_chain_id_of_another_is_not_used_for_it(
    service: Any, client: Any, other: dict[str, str]
) -> None:
    """The diff IDs in an image's config are its author's claim; only the same bytes may stand in."""
    service.prepare_target("sha256:base", labels=layer_labels("attacker"))
    (mount,) = client.prepare("extract", "", {REF: "sha256:base", **other})
    assert mount.type == "bind", "containerd unpacks the layer, and checks it"
    assert "same chain ID" in client.stat("extract").labels[FALLBACK]
    with service.mounted([mount]) as root:
        assert list(root.iterdir()) == []
    same = layer_labels("attacker", reference="registry.test/b:1")
    size = {"containerd.io/snapshot/remote/lazylayer.annotation/org.example.size": "5"}
    service.prepare_target("sha256:base", key="again", labels={**same, **size})


@pytest.mark.parametrize(("manifest", "same"), [("one", True), ("another", False)])
def test_a_layer_whose_table_stands_beside_an_image_is_not_used_for_another_image(
    service: Any, client: Any, manifest: str, same: bool
) -> None:
    """containerd's CRI tells of the manifest and not of an index, which may show other files of the same bytes."""

    def labels(name: str) -> dict[str, str]:
        found = {**layer_labels("base"), MANIFEST_DIGEST: sha256_digest(name.encode())}
        del found[TOC_DIGEST]
        return found

    service.prepare_target("sha256:base", labels=labels("one"))
    if same:
        service.prepare_target("sha256:base", key="again", labels=labels(manifest))
        return
    client.prepare("extract", "", {REF: "sha256:base", **labels(manifest)})
    assert "same chain ID" in client.stat("extract").labels[FALLBACK]


def test_a_layer_whose_archive_was_checked_stands_in_for_all_of_its_chain_id(service: Any, client: Any) -> None:
    service.prepare_target("sha256:base", labels=layer_labels("gzip"))
    with service.snapshotter.store.transaction() as transaction:
        (snapshot,) = transaction.all()
        transaction.set_labels(snapshot.id, {**snapshot.labels, CHECKED: "diff ID sha256:base"})
    service.prepare_target("sha256:base", key="other", labels=layer_labels("zstd"))
    assert set(client.list()) == {"sha256:base"}


def test_a_layer_that_was_refused_is_no_parent(service: Any, client: Any, refused: Any) -> None:
    service.prepare_target("sha256:base")
    with service.snapshotter.store.transaction() as transaction:
        (snapshot,) = transaction.all()
        transaction.set_labels(snapshot.id, {**snapshot.labels, CHECKED: "refused: the archive has another diff ID"})
    with refused("UNAVAILABLE") as error:
        client.prepare("container", "sha256:base")
    assert "another diff ID" in error.value.details
    assert client.prepare("extract", "", {REF: "sha256:base", **layer_labels("sha256:base")})


def test_of_two_layers_that_claim_one_chain_id_at_once_one_is_mounted(service: Any, client: Any) -> None:
    service.filesystem.go_on.clear()
    came: list[str] = []

    def prepare(name: str) -> None:
        try:
            client.prepare(name, "", {REF: "sha256:base", **layer_labels(name)})
            came.append("mounts")
        except Exception as error:
            came.append(getattr(error, "status", repr(error)))

    threads = [threading.Thread(target=prepare, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
        assert service.filesystem.mounting.acquire(timeout=30)
    service.filesystem.go_on.set()
    for thread in threads:
        thread.join()
    assert sorted(came) == ["ALREADY_EXISTS", "mounts"]
    assert len(service.left_mounted()) == 1
    (active,) = [each for each in client.list().values() if each.kind == 2]
    with service.mounted(client.mounts(active.name)) as root:
        assert list(root.iterdir()) == []


# --- two names for one socket --------------------------------------------------------------------


def test_each_name_for_the_socket_has_its_own_snapshots(service: Any, client: Any, refused: Any) -> None:
    """The garbage collection of one removes what it finds and does not know."""
    other = type(client)(service.address, "stargz")
    service.prepare_target("sha256:a")
    client.prepare("container", "sha256:a")
    assert other.list() == {}
    for call in (other.stat, other.remove, other.mounts, other.usage):
        with refused("NOT_FOUND"):
            call("container")
    with refused("NOT_FOUND"):
        other.prepare("new", "sha256:a")
    with refused("NOT_FOUND"):
        other.commit("new", "container")
    other.prepare("container")
    other.remove("container")
    other.cleanup()
    assert set(client.list()) == {"sha256:a", "container"}
    assert service.left_mounted() == [f"{service.root}/snapshots/1/fs"]
    other.channel.close()


def test_snapshots_of_a_version_without_scopes_belong_to_the_name_that_uses_them(service: Any, client: Any) -> None:
    service.prepare_target("sha256:a")
    service.prepare_target("sha256:b", "sha256:a")
    client.prepare("container", "sha256:b")
    with sqlite3.connect(service.root / "metadata.sqlite") as connection:
        connection.execute("UPDATE snapshots SET scope = ''")
    connection.close()
    other = type(client)(service.address, "stargz")
    assert client.list() == other.list() == {}
    assert client.stat("container").parent == "sha256:b"
    with service.mounted(client.mounts("container")) as root:
        assert (root / "sample").read_text() == "remote\n"
    assert set(client.list()) == {"container"}
    service.prepare_target("sha256:b", "sha256:a", key="again")
    assert set(client.list()) == {"container", "sha256:a", "sha256:b"}
    assert other.list() == {}
    other.channel.close()
