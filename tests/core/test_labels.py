"""Labels by which a snapshotter is told what to mount."""

from __future__ import annotations

import pytest

from lazylayer.api.labels import (
    CRI_DIGEST,
    CRI_LAYERS,
    CRI_REFERENCE,
    PREFETCH_SIZE,
    STARGZ_DIGEST,
    STARGZ_LAYERS,
    STARGZ_REFERENCE,
    label_number,
    layer_source,
)
from lazylayer.api.oci import Digest, parse_reference
from lazylayer.errors import MountError

ONE, TWO, THREE = (Digest("sha256:" + each * 64) for each in "123")
DEFAULT = {STARGZ_REFERENCE: "registry.test/a:1", STARGZ_DIGEST: ONE, STARGZ_LAYERS: f"{ONE},{TWO}"}
CRI = {CRI_REFERENCE: "registry.test/b:2", CRI_DIGEST: TWO, CRI_LAYERS: f"{TWO},{THREE}"}


@pytest.mark.seed(3)
def test_the_default_labels_name_a_layer_and_its_neighbours() -> None:
    source = layer_source(DEFAULT)
    assert (source.reference, source.digest, source.neighbours) == (parse_reference("registry.test/a:1"), ONE, (TWO,))


@pytest.mark.seed(3)
def test_the_cri_labels_name_a_layer_and_its_neighbours() -> None:
    source = layer_source(CRI)
    assert (source.reference, source.digest, source.neighbours) == (parse_reference("registry.test/b:2"), TWO, (THREE,))


SAME = {CRI_REFERENCE: "registry.test/a:1", CRI_DIGEST: ONE, CRI_LAYERS: f"{ONE},{THREE}"}


@pytest.mark.seed(3)
def test_the_cri_labels_win_over_a_default_set_that_agrees() -> None:
    source = layer_source({**DEFAULT, **SAME})
    assert (source.reference, source.digest, source.neighbours) == (parse_reference("registry.test/a:1"), ONE, (THREE,))


@pytest.mark.parametrize(
    "others",
    [
        CRI,
        {CRI_REFERENCE: "registry.test/private:1"},
        {CRI_DIGEST: TWO},
        {**SAME, CRI_DIGEST: TWO},
        {**SAME, CRI_REFERENCE: "registry.test/private:1"},
        {**SAME, CRI_REFERENCE: "not/../good@"},
    ],
)
def test_sets_of_labels_that_disagree_are_refused(others: dict[str, str]) -> None:
    """An image's author can add labels by annotations: they must not lead to another image, fetched with our login."""
    for labels in ({**DEFAULT, **others}, {**others, **DEFAULT}):
        with pytest.raises(MountError, match=r"disagree|label"):
            layer_source(labels)
    swapped = dict(zip([CRI_REFERENCE, CRI_DIGEST, CRI_LAYERS], DEFAULT.values(), strict=True))
    names = {CRI_REFERENCE: STARGZ_REFERENCE, CRI_DIGEST: STARGZ_DIGEST, CRI_LAYERS: STARGZ_LAYERS}
    with pytest.raises(MountError, match=r"disagree|label"):
        layer_source({**swapped, **{names[name]: value for name, value in others.items()}})


@pytest.mark.seed(3)
@pytest.mark.parametrize("labels", [DEFAULT, CRI])
def test_each_label_is_mandatory_and_has_its_own_error(labels: dict[str, str]) -> None:
    errors = set()
    for missing in labels:
        with pytest.raises(MountError, match=missing) as caught:
            layer_source({name: value for name, value in labels.items() if name != missing})
        errors.add(str(caught.value))
    assert len(errors) == len(labels)


@pytest.mark.seed(3)
def test_a_complete_set_is_used_when_the_other_is_only_begun() -> None:
    assert layer_source({**DEFAULT, CRI_REFERENCE: "registry.test/a:1"}).digest == ONE


def test_no_labels_say_so() -> None:
    with pytest.raises(MountError, match="name no image"):
        layer_source({"containerd.io/snapshot.ref": "x"})


@pytest.mark.seed(3)
@pytest.mark.parametrize("label", [STARGZ_REFERENCE, STARGZ_DIGEST, STARGZ_LAYERS])
def test_a_bad_value_names_its_label(label: str) -> None:
    with pytest.raises(MountError, match=label):
        layer_source({**DEFAULT, label: "not/../good@"})


def test_neighbours_are_listed_once_and_without_the_layer_itself() -> None:
    labels = {**DEFAULT, STARGZ_LAYERS: f" {TWO}, {ONE},,{TWO},{THREE}"}
    assert layer_source(labels).neighbours == (TWO, THREE)


@pytest.mark.seed(3)
@pytest.mark.parametrize(
    ("value", "number"), [("0", 0), ("1048576", 1048576), ("-1", None), ("1e3", None), ("", None), ("٣", None)]
)
def test_a_prefetch_size_counts_when_it_parses(value: str, number: int | None) -> None:
    assert label_number({PREFETCH_SIZE: value}, PREFETCH_SIZE) == number
