"""Labels and annotations that name the layer to mount.

The names are those of containerd and of the Go stargz-snapshotter, so that their clients work
unchanged. Labels come from the client that pulls; annotations come from the image's author, who is not trusted
to say which layer to mount, nor from where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from lazylayer.api.oci import Digest, Reference, parse_digest, parse_reference
from lazylayer.errors import FormatError, InvalidReferenceError, MountError

__all__ = [
    "CRI_DIGEST",
    "CRI_LAYERS",
    "CRI_REFERENCE",
    "LAYER_SIZE",
    "MANIFEST_DIGEST",
    "PREFETCH_SIZE",
    "SKIP_VERIFY",
    "STARGZ_DIGEST",
    "STARGZ_LAYERS",
    "STARGZ_REFERENCE",
    "TOC_DIGEST",
    "LayerSource",
    "label_number",
    "layer_source",
]

CRI_REFERENCE = "containerd.io/snapshot/cri.image-ref"
CRI_DIGEST = "containerd.io/snapshot/cri.layer-digest"
CRI_LAYERS = "containerd.io/snapshot/cri.image-layers"
MANIFEST_DIGEST = "containerd.io/snapshot/cri.manifest-digest"
"""The digest of the image's manifest."""
STARGZ_REFERENCE = "containerd.io/snapshot/remote/stargz.reference"
STARGZ_DIGEST = "containerd.io/snapshot/remote/stargz.digest"
STARGZ_LAYERS = "containerd.io/snapshot/remote/stargz.layers"
LAYER_SIZE = "containerd.io/snapshot/remote/lazylayer.size"
PREFETCH_SIZE = "containerd.io/snapshot/remote/stargz.prefetch"
SKIP_VERIFY = "containerd.io/snapshot/remote/stargz.skipverify"
TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"

_LABEL_SETS = (
    ("CRI", CRI_REFERENCE, CRI_DIGEST, CRI_LAYERS),
    ("default", STARGZ_REFERENCE, STARGZ_DIGEST, STARGZ_LAYERS),
)

_Value = TypeVar("_Value")


class LayerSource(msgspec.Struct, frozen=True):
    """The source of a layer by its labels: its image, its digest, and its neighbours.

    `neighbours` holds the digests of the image's other layers that are worth resolving at the same
    time, in the order of the label and without `digest` itself.
    """

    reference: Reference
    digest: Digest
    neighbours: tuple[Digest, ...]


def layer_source(labels: Mapping[str, str]) -> LayerSource:
    """Return the source that `labels` name, by the CRI set or the default set.

    Within the set that is used, reference, digest and layers are all mandatory. If labels of both sets are there,
    they must name the same reference and digest: containerd makes labels out of an image's annotations too, and
    those of a stranger must not lead to another image, which the node's credentials would fetch.

    Raises MountError, which names the label that is missing or bad and, when a set was begun, the set.
    """
    begun = [each for each in _LABEL_SETS if any(label in labels for label in each[1:])]
    if not begun:
        raise MountError(f"the labels name no image: neither {CRI_REFERENCE} nor {STARGZ_REFERENCE} is set")
    _refuse_disagreement(labels)
    complete = [each for each in begun if all(label in labels for label in each[1:])]
    if not complete:
        name, *wanted = begun[0]
        missing = next(label for label in wanted if label not in labels)
        raise MountError(f"the {name} labels are incomplete: {missing} is missing")
    _, reference, digest, layers = complete[0]
    image, target = _parse(labels, reference, parse_reference), _parse(labels, digest, parse_digest)
    chain = _parse(
        labels, layers, lambda text: [parse_digest(each.strip()) for each in text.split(",") if each.strip()]
    )
    neighbours = tuple(dict.fromkeys(each for each in chain if each != target))
    return LayerSource(reference=image, digest=target, neighbours=neighbours)


def _refuse_disagreement(labels: Mapping[str, str]) -> None:
    (_, *cri), (_, *default) = _LABEL_SETS
    parsers: tuple[Callable[[str], object], ...] = (parse_reference, parse_digest)
    for one, other, parse in zip(cri, default, parsers, strict=False):
        if one in labels and other in labels and _parse(labels, one, parse) != _parse(labels, other, parse):
            raise MountError(
                f"the labels disagree: {one} is {labels[one]}, {other} is {labels[other]}; "
                "if the client set only one, the image has the other as an annotation: remove it there"
            )


def _parse(labels: Mapping[str, str], name: str, parse: Callable[[str], _Value]) -> _Value:
    try:
        return parse(labels[name])
    except (FormatError, InvalidReferenceError) as error:
        raise MountError(f"label {name}: {error}") from error


def label_number(labels: Mapping[str, str], name: str) -> int | None:
    """Return the natural number that a label holds, or None if it is not set or does not parse."""
    text = labels.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
