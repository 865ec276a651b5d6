"""A layer's annotations travel as labels, and come back."""

from __future__ import annotations

import pytest

from lazylayer.api.labels import CRI_DIGEST, CRI_REFERENCE, STARGZ_REFERENCE, layer_source
from lazylayer.api.oci import Digest, parse_reference
from lazylayer_snapshotter_containerd.labels import annotation_labels, label_annotations, layer_source_labels

ONE, TWO = (Digest("sha256:" + each * 64) for each in "12")


def test_the_labels_of_a_layer_lead_back_to_it() -> None:
    reference = parse_reference("registry.test/a:1")
    source = layer_source(layer_source_labels(reference, ONE, [ONE, TWO]))
    assert (source.reference, source.digest, source.neighbours) == (reference, ONE, (TWO,))


def test_a_list_of_many_layers_is_cut_to_what_containerd_accepts() -> None:
    layers = [Digest(f"sha256:{number:064x}") for number in range(200)]
    labels = layer_source_labels(parse_reference("registry.test/a:1"), layers[0], layers)
    assert all(len(name) + len(value) <= 4096 for name, value in labels.items())
    assert len(layer_source(labels).neighbours) > 50


@pytest.mark.parametrize(
    "name",
    [
        CRI_REFERENCE,
        CRI_DIGEST,
        STARGZ_REFERENCE,
        "containerd.io/snapshot/remote/urls",
        "containerd.io/snapshot/remote/stargz.skipverify",
        "containerd.io/snapshot/remote/lazylayer.size",
        "containerd.io/snapshot/remote/lazylayer.annotation/org.example",
        "containerd.io/snapshot/remote",
        "containerd.io/snapshot/uidmapping",
    ],
)
def test_annotations_never_become_labels_that_mean_something_else(name: str) -> None:
    """Even if a format plugin claims such a name."""
    assert annotation_labels({name: "x"}, {name}) == {}


def test_annotations_travel_as_labels_and_come_back() -> None:
    annotations = {
        "containerd.io/snapshot/stargz/toc.digest": ONE,
        "org.example.toc": TWO,
        "org.example.other": "x",
        "org.example.long": "x" * 4096,
    }
    wanted = annotations.keys() - {"org.example.other"}
    labels = annotation_labels(annotations, wanted)
    assert len(labels) == 2
    assert all(name.startswith("containerd.io/snapshot/") for name in labels)
    carried = label_annotations(labels)
    assert carried["org.example.toc"] == TWO
    assert carried["containerd.io/snapshot/stargz/toc.digest"] == ONE
