"""Carry a layer's annotations to the snapshotter as containerd's labels, and back.

containerd hands a snapshotter no annotations, only labels, and of these only some.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lazylayer.api.labels import (
    CRI_DIGEST,
    CRI_LAYERS,
    CRI_REFERENCE,
    LAYER_SIZE,
    MANIFEST_DIGEST,
    PREFETCH_SIZE,
    SKIP_VERIFY,
    STARGZ_DIGEST,
    STARGZ_LAYERS,
    STARGZ_REFERENCE,
)
from lazylayer.api.oci import Digest, Reference

__all__ = ["annotation_labels", "label_annotations", "layer_source_labels", "mount_labels"]

_PASSED_ON = "containerd.io/snapshot/"
"""containerd hands labels with this prefix to snapshotters, and no others."""
_ANNOTATION = _PASSED_ON + "remote/lazylayer.annotation/"
"""In front of the name of an annotation that has no such prefix."""
_RESERVED = ("cri.", "remote", "uidmapping", "gidmapping")
"""Labels behind that prefix which clients and snapshotters set: no annotation may become one."""
_MAX_LABEL = 4096
"""Bytes of name and value together: containerd's limit."""

_MOUNTING = frozenset(
    [
        CRI_REFERENCE,
        CRI_DIGEST,
        CRI_LAYERS,
        STARGZ_REFERENCE,
        STARGZ_DIGEST,
        STARGZ_LAYERS,
        LAYER_SIZE,
        MANIFEST_DIGEST,
        PREFETCH_SIZE,
        SKIP_VERIFY,
    ]
)


def layer_source_labels(reference: Reference, digest: Digest, layers: list[Digest]) -> dict[str, str]:
    """Return the default set of labels for one layer; the inverse of `lazylayer.api.labels.layer_source`.

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
    removes. Left out are annotations that do not fit in a label, and those whose names mean something else as labels:
    a source, its verification, mapped ids.
    """
    reserved = tuple(_PASSED_ON + each for each in _RESERVED)
    labels = {
        name if name.startswith(_PASSED_ON) else _ANNOTATION + name: value
        for name, value in annotations.items()
        if name in wanted and not name.startswith(reserved)
    }
    return {name: value for name, value in labels.items() if len(name.encode()) + len(value.encode()) <= _MAX_LABEL}


def label_annotations(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the annotations that labels carry: the labels themselves, and the inverse of `annotation_labels`."""
    carried = {name.removeprefix(_ANNOTATION): value for name, value in labels.items() if name.startswith(_ANNOTATION)}
    return {**carried, **labels}


def mount_labels(labels: Mapping[str, str], annotations: Collection[str]) -> dict[str, str]:
    """Return the labels by which a layer is mounted, without those that are other programs'.

    :param annotations: the names of annotations that formats read.
    """
    return {
        name: value
        for name, value in labels.items()
        if name in _MOUNTING or name.removeprefix(_ANNOTATION) in annotations
    }
