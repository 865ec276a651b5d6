"""Layers that are mounted before containerd asks for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from lazylayer.errors import FormatError
from lazylayer_snapshotter_containerd.ahead import LayerAhead, WantedLayer
from lazylayer_snapshotter_containerd.restoring import reconcile

from .conftest import FALLBACK, REF, REMOTE, layer_labels

NAME = "test"
"""The client's name for the snapshotter."""


def wanted(target: str, labels: Mapping[str, str] | None = None, ready: Any = lambda: None) -> WantedLayer:
    return WantedLayer(target, {**(labels or layer_labels(target)), REF: target}, ready)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_chain_is_mounted_at_once_and_taken_over_layer_by_layer(service: Any, client: Any) -> None:
    service.filesystem.go_on.clear()
    chain = ["sha256:a", "sha256:b", "sha256:c"]
    layers = service.snapshotter.ahead.mount(NAME, [wanted(each) for each in chain])
    for _ in chain:
        assert service.filesystem.mounting.acquire(timeout=30), "all at the same time"
    assert client.list() == {}, "containerd's garbage collection must not see them"
    service.filesystem.go_on.set()
    for target, parent in zip(chain, ["", *chain], strict=False):
        service.prepare_target(target, parent)
    assert not service.filesystem.mounting.acquire(blocking=False), "nothing was mounted twice"
    assert all(layer.committed for layer in layers)
    assert {name: info.parent for name, info in client.list().items()} == dict(zip(chain, ["", *chain], strict=False))
    assert client.stat("sha256:c").labels[REMOTE]
    with service.mounted(client.prepare("container", "sha256:c")) as root:
        assert (root / "sample").read_text() == "remote\n"
    service.snapshotter.ahead.release(layers)
    assert len(service.left_mounted()) == 3


def test_layers_that_are_not_asked_for_are_removed(service: Any, client: Any) -> None:
    layers = service.snapshotter.ahead.mount(NAME, [wanted("sha256:a"), wanted("sha256:b")])
    service.prepare_target("sha256:a")
    client.cleanup()
    assert len(service.left_mounted()) == 2, "a cleanup leaves what is mounted ahead"
    service.snapshotter.ahead.release(layers)
    wait_for(lambda: service.directory_names() == {"1"})
    assert len(service.left_mounted()) == 1
    service.prepare_target("sha256:b", "sha256:a")


def other_layers() -> dict[str, dict[str, str]]:
    return {
        "another blob": layer_labels("other"),
        "another table": layer_labels("sha256:a", toc="other"),
        "another image": layer_labels("sha256:a", reference="registry.test/b:1"),
        "unverified": {**layer_labels("sha256:a"), "containerd.io/snapshot/remote/stargz.skipverify": "1"},
    }


@pytest.mark.parametrize("other", other_layers().values(), ids=other_layers())
def test_only_the_layer_that_is_asked_for_is_the_answer(service: Any, other: dict[str, str]) -> None:
    """The chain ID is a claim of the image's author, and the image tells whose credentials fetched the layer."""
    layers = service.snapshotter.ahead.mount(NAME, [wanted("sha256:a")])
    assert layers[0].failure() == ""
    service.prepare_target("sha256:a", labels=other)
    assert not layers[0].committed
    service.snapshotter.ahead.release(layers)
    wait_for(lambda: len(service.left_mounted()) == 1)


def test_another_name_for_the_socket_gets_none(service: Any) -> None:
    layers = service.snapshotter.ahead.mount("stargz", [wanted("sha256:a")])
    service.prepare_target("sha256:a")
    assert not layers[0].committed
    service.snapshotter.ahead.release(layers)
    wait_for(lambda: service.directory_names() == {"2"})


def test_a_layer_that_cannot_be_mounted_becomes_an_ordinary_snapshot(service: Any, client: Any) -> None:
    def fail() -> None:
        raise FormatError("an unknown format")

    layers = service.snapshotter.ahead.mount(NAME, [wanted("sha256:a", ready=fail)])
    assert layers[0].failure() == "an unknown format"
    (mount,) = client.prepare("extract", "", {REF: "sha256:a", **layer_labels("sha256:a")})
    assert client.stat("extract").labels[FALLBACK] == "an unknown format"
    assert not service.filesystem.mounting.acquire(blocking=False), "it is not tried again"
    with service.mounted([mount]) as root:
        assert list(root.iterdir()) == []
    wait_for(lambda: service.directory_names() == {"2"})


def test_a_layer_that_came_otherwise_meanwhile_is_used(service: Any) -> None:
    service.prepare_target("sha256:a")
    assert service.snapshotter.is_mounted_as(NAME, "sha256:a", layer_labels("sha256:a"))
    assert not service.snapshotter.is_mounted_as(NAME, "sha256:a", layer_labels("other"))
    assert not service.snapshotter.is_mounted_as("stargz", "sha256:a", layer_labels("sha256:a"))
    layers = service.snapshotter.ahead.mount(NAME, [wanted("sha256:a")])
    service.prepare_target("sha256:a", key="again")
    assert not layers[0].committed
    wait_for(lambda: service.directory_names() == {"1"})


def test_a_pull_that_ends_early_leaves_nothing(service: Any) -> None:
    """Its client went away while layers are being mounted."""
    service.filesystem.go_on.clear()
    layers: list[LayerAhead] = service.snapshotter.ahead.mount(NAME, [wanted("sha256:a")])
    assert service.filesystem.mounting.acquire(timeout=30)
    released = threading.Thread(target=service.snapshotter.ahead.release, args=(layers,))
    released.start()
    released.join(30)
    assert not released.is_alive(), "a release waits for no mount"
    service.filesystem.go_on.set()
    wait_for(lambda: service.directory_names() == set())
    assert service.left_mounted() == []


def test_the_next_daemon_removes_what_was_mounted_ahead(service: Any) -> None:
    layers = service.snapshotter.ahead.mount(NAME, [wanted("sha256:a")])
    assert layers[0].failure() == ""
    service.stop()
    service.filesystem.forget()
    service.start()
    assert reconcile(service.snapshotter) == []
    assert service.left_mounted() == []
    assert service.directory_names() == set()
    service.prepare_target("sha256:a")
