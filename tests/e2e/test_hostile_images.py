"""Images whose authors claim what is not theirs: the chain IDs of other images, and other images' layers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.containerd_node import SNAPSHOTTER, ContainerdNode, annotate_layers, claim_layers, pick_layers
from e2e.test_containers import laziness, pull_by_cri
from images.go_image import GoImages
from lazylayer.api.labels import CRI_DIGEST, CRI_LAYERS, CRI_REFERENCE, STARGZ_DIGEST, STARGZ_LAYERS, STARGZ_REFERENCE
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import ServerError, wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.servers]


@pytest.fixture(scope="module")
def node(as_root: None, server_directory: Path, docker_registry: DockerRegistry) -> Iterator[ContainerdNode]:
    directory = server_directory / "h"
    settings = {"plugin.snapshotter_containerd.check_diff_ids": "true", "background.silence": "0"}
    with ContainerdNode(directory, docker_registry, settings=settings) as node:
        yield node


@pytest.fixture(scope="module")
def lazy(go_images: GoImages, python_layers: list[Path]) -> str:
    return go_images.push_estargz(python_layers)


@pytest.fixture(autouse=True)
def images_are_removed(node: ContainerdNode) -> Iterator[None]:
    yield
    for namespace in node.containerd.ctr("namespaces", "list", "--quiet").split():
        node.remove_images(namespace)


def labels(node: ContainerdNode, namespace: str = "default") -> list[dict[str, str]]:
    """The labels of all our snapshots, as containerd shows them."""
    found = []
    for name in node.snapshots(namespace):
        info: dict[str, Any] = json.loads(
            node.containerd.ctr("snapshots", "--snapshotter", SNAPSHOTTER, "info", name, namespace=namespace)
        )
        found.append(info.get("Labels") or {})
    return found


def test_a_layer_under_the_chain_id_of_a_base_image_is_not_that_base_image(node: ContainerdNode, lazy: str) -> None:
    hostile = claim_layers(node.registry, lazy, [1], [0], "hostile")
    assert laziness(node.pull(hostile)) == [True], "its own layer is mounted, whatever it claims"
    with pytest.raises(ServerError, match="another layer under its chain ID"):
        node.pull(lazy)
    assert laziness(node.pull(lazy, namespace="other")) == [False, True], "the first is unpacked, and so checked"
    assert node.run(lazy, "print(6 * 7)", namespace="other") == "42\n"


def test_a_complete_layer_that_is_not_its_chain_id_is_refused(node: ContainerdNode, lazy: str) -> None:
    hostile = claim_layers(node.registry, lazy, [0], [1], "hostile-complete")
    good = pick_layers(node.registry, lazy, [0], "good-complete")
    node.pull(hostile)
    node.pull(good)

    def checked() -> list[str]:
        found = [each.get("containerd.io/snapshot/remote/lazylayer.checked", "") for each in labels(node)]
        return sorted(each.partition(":")[0] for each in found)

    wait_until(lambda: checked() == ["diff ID sha256", "refused"], "both are checked", seconds=60)
    refusals = []
    for number, name in enumerate(sorted(node.snapshots())):
        try:
            node.containerd.ctr("snapshots", "--snapshotter", SNAPSHOTTER, "prepare", f"container {number}", name)
            node.containerd.ctr("snapshots", "--snapshotter", SNAPSHOTTER, "remove", f"container {number}")
        except ServerError as error:
            refusals.append(str(error))
    assert len(refusals) == 1
    assert "which makes another chain ID" in refusals[0]


def test_annotations_lead_to_no_other_image(node: ContainerdNode, lazy: str) -> None:
    """As a public image would name a private one of the same registry."""
    digest = "sha256:" + "0" * 64
    private = f"{node.registry.host}/private:1"
    cri = {CRI_REFERENCE: private, CRI_DIGEST: digest, CRI_LAYERS: digest}
    default = {STARGZ_REFERENCE: private, STARGZ_DIGEST: digest, STARGZ_LAYERS: digest}
    hostile = annotate_layers(node.registry, lazy, {**cri, **default, "containerd.io/snapshot/x": "y"}, "annotated")
    assert laziness(node.pull(hostile)) == [True, True]
    assert not [each for each in labels(node) if digest in each.values() or private in each.values()]
    assert not [name for each in labels(node) for name in each if name.startswith("containerd.io/snapshot/cri.")]
    assert node.run(hostile, "print(6 * 7)") == "42\n"

    hostile = annotate_layers(node.registry, lazy, default, "annotated-for-cri")
    assert pull_by_cri(node, hostile).startswith("sha256:")
    lines = [str(line["message"]) for line in node.daemon.log()]
    assert [line for line in lines if "the labels disagree" in line and private in line]
    assert b"/v2/private/" not in node.registry.log.read_bytes()
