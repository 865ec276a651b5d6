"""Labels and annotations by which lazylayer is told what to mount.

The names are those of containerd and of the Go stargz-snapshotter, so that their clients work
unchanged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from lazylayer.api.oci import Digest, Reference, parse_digest, parse_reference
from lazylayer.errors import FormatError, InvalidReferenceError, MountError

__all__ = [
    "CRI_DIGEST",
    "CRI_LAYERS",
    "CRI_REFERENCE",
    "LAYER_SIZE",
    "PREFETCH_SIZE",
    "SKIP_VERIFY",
    "STARGZ_DIGEST",
    "STARGZ_LAYERS",
    "STARGZ_REFERENCE",
    "TOC_DIGEST",
    "LayerSource",
    "annotation_labels",
    "label_annotations",
    "label_number",
    "layer_source",
    "layer_source_labels",
]

CRI_REFERENCE = "containerd.io/snapshot/cri.image-ref"
CRI_DIGEST = "containerd.io/snapshot/cri.layer-digest"
CRI_LAYERS = "containerd.io/snapshot/cri.image-layers"
STARGZ_REFERENCE = "containerd.io/snapshot/remote/stargz.reference"
STARGZ_DIGEST = "containerd.io/snapshot/remote/stargz.digest"
STARGZ_LAYERS = "containerd.io/snapshot/remote/stargz.layers"
LAYER_SIZE = "containerd.io/snapshot/remote/lazylayer.size"
PREFETCH_SIZE = "containerd.io/snapshot/remote/stargz.prefetch"
SKIP_VERIFY = "containerd.io/snapshot/remote/stargz.skipverify"
TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"

_PASSED_ON = "containerd.io/snapshot/"
"""containerd hands labels with this prefix to snapshotters, and no others."""
_ANNOTATION = _PASSED_ON + "remote/lazylayer.annotation/"
"""In front of the name of an annotation that has no such prefix."""
_MAX_LABEL = 4096
"""Bytes of name and value together: containerd's limit."""

_LABEL_SETS = (
    ("CRI", CRI_REFERENCE, CRI_DIGEST, CRI_LAYERS),
    ("default", STARGZ_REFERENCE, STARGZ_DIGEST, STARGZ_LAYERS),
)


class LayerSource(msgspec.Struct, frozen=True):
    """Where labels say that a layer comes from: its image, its digest, and its neighbours.

    `neighbours` holds the digests of the image's other layers that are worth resolving at the same
    time, in the order of the label and without `digest` itself.
    """

    reference: Reference
    digest: Digest
    neighbours: tuple[Digest, ...]


def layer_source(labels: Mapping[str, str]) -> LayerSource:
    """The source that `labels` name; the CRI set wins over the default set.

    Within the set that is used, reference, digest and layers are all mandatory. Raises MountError,
    which names the label that is missing or bad and, when a set was begun, the set.
    """
    begun = [each for each in _LABEL_SETS if any(label in labels for label in each[1:])]
    if not begun:
        raise MountError(f"the labels name no image: neither {CRI_REFERENCE} nor {STARGZ_REFERENCE} is set")
    complete = [each for each in begun if all(label in labels for label in each[1:])]
    if not complete:
        name, *wanted = begun[0]
        missing = next(label for label in wanted if label not in labels)
        raise MountError(f"the {name} labels are incomplete: {missing} is missing")
    return _read_set(labels, *complete[0][1:])


def _read_set(labels: Mapping[str, str], reference: str, digest: str, layers: str) -> LayerSource:
    try:
        image = parse_reference(labels[reference])
    except InvalidReferenceError as error:
        raise MountError(f"label {reference}: {error}") from error
    try:
        target = parse_digest(labels[digest])
    except FormatError as error:
        raise MountError(f"label {digest}: {error}") from error
    try:
        chain = [parse_digest(each.strip()) for each in labels[layers].split(",") if each.strip()]
    except FormatError as error:
        raise MountError(f"label {layers}: {error}") from error
    neighbours = tuple(dict.fromkeys(each for each in chain if each != target))
    return LayerSource(reference=image, digest=target, neighbours=neighbours)


def label_number(labels: Mapping[str, str], name: str) -> int | None:
    """The natural number that a label holds, or None if it is not set or does not parse."""
    text = labels.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def layer_source_labels(reference: Reference, digest: Digest, layers: list[Digest]) -> dict[str, str]:
    """The default set of labels for one layer; the inverse of `layer_source`.

    `layers` are the image's layers from this one on; the list is cut so that label and value stay
    within containerd's limit of 4096 bytes.
    """
    room = _MAX_LABEL - len(STARGZ_LAYERS)
    kept: list[str] = []
    for each in layers:
        room -= len(each) + 1
        if room < 0:
            break
        kept.append(each)
    return {STARGZ_REFERENCE: str(reference), STARGZ_DIGEST: digest, STARGZ_LAYERS: ",".join(kept)}


def annotation_labels(annotations: Mapping[str, str], wanted: Collection[str]) -> dict[str, str]:
    """Return the labels that carry a layer's annotations of the `wanted` names to a snapshotter.

    A name that containerd passes on stays as it is, another gets a prefix that `label_annotations`
    removes. An annotation that does not fit in a label is left out.
    """
    labels = {
        name if name.startswith(_PASSED_ON) else _ANNOTATION + name: value
        for name, value in annotations.items()
        if name in wanted
    }
    return {name: value for name, value in labels.items() if len(name.encode()) + len(value.encode()) <= _MAX_LABEL}


def label_annotations(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the annotations that labels carry: the labels themselves, and the inverse of `annotation_labels`."""
    carried = {name.removeprefix(_ANNOTATION): value for name, value in labels.items() if name.startswith(_ANNOTATION)}
    return {**carried, **labels}
