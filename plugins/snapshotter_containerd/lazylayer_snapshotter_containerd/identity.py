"""Tell layers apart by the labels that ask for them.

containerd asks for a layer by its chain ID, which is made from the diff IDs in an image's config. The image's
author writes those, and a layer that is not unpacked is not checked against them. So a layer that was mounted
for one image stands in for another image's only if blob and promises are the same, or if its archive was checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from lazylayer.api.labels import MANIFEST_DIGEST, SKIP_VERIFY, layer_source
from lazylayer.api.oci import Digest
from lazylayer.errors import MountError
from lazylayer_snapshotter_containerd.labels import label_annotations

__all__ = [
    "CHECKED_LABEL",
    "FormatLabels",
    "LayerIdentity",
    "chain_id",
    "checked_diff_id",
    "is_refused",
    "may_stand_in",
]

CHECKED_LABEL = "containerd.io/snapshot/remote/lazylayer.checked"
"""On a committed snapshot whose archive was read as a whole: the result.

Without it, each file is checked against the table of contents when it is read, and nothing else. It is not set
before: containerd keeps a copy of the first labels, and shows that.
"""
_DIFF_ID = "diff ID "
_REFUSED = "refused: "


class FormatLabels(Protocol):
    """The names of labels that formats read; `lazylayer.plugin.formats.Formats` is one."""

    @property
    def annotations(self) -> Collection[str]:
        """All of them: they describe a layer's bytes."""

    @property
    def toc_digest_labels(self) -> Collection[str]:
        """The names of those that hold the digest of the table of contents."""


class LayerIdentity(NamedTuple):
    """The bytes that labels ask for: the digest of the blob, and those of tables of contents.

    Where no label promises a table, one may stand beside the image, so the image's manifest counts instead. Other
    annotations do not count: containerd passes on some of them, `lazylayer pull` all.
    """

    digest: Digest
    tables: frozenset[tuple[str, str]]
    verified: bool

    @classmethod
    def of(cls, labels: Mapping[str, str], formats: FormatLabels) -> LayerIdentity | None:
        """Return the identity that labels ask for, or None if they name no layer."""
        try:
            digest = layer_source(labels).digest
        except MountError:
            return None
        known = label_annotations(labels)
        tables = frozenset((name, known[name]) for name in formats.toc_digest_labels if name in known)
        if not tables and MANIFEST_DIGEST in known:
            tables = frozenset([(MANIFEST_DIGEST, known[MANIFEST_DIGEST])])
        return cls(digest, tables, SKIP_VERIFY not in labels)


def may_stand_in(mounted: Mapping[str, str], wanted: Mapping[str, str], formats: FormatLabels) -> bool:
    """Return True if a mounted layer may be used for one that is wanted under the same chain ID, by their labels."""
    if is_refused(mounted):
        return False
    if mounted.get(CHECKED_LABEL, "").startswith(_DIFF_ID):
        return True
    identity = LayerIdentity.of(mounted, formats)
    return identity is not None and identity == LayerIdentity.of(wanted, formats)


def is_refused(labels: Mapping[str, str]) -> bool:
    """Return True if a layer's archive was found not to be what its chain ID says."""
    return labels.get(CHECKED_LABEL, "").startswith(_REFUSED)


def checked_diff_id(diff_id: str, parent: str, chain: str) -> str:
    """Return the value of CHECKED_LABEL for a layer whose archive was read.

    :param diff_id: the digest of the plain archive.
    :param parent: the chain ID of the layer below, or nothing for the lowest.
    :param chain: the chain ID that the layer is mounted under.
    """
    if chain_id([*filter(None, [parent]), diff_id]) == chain:
        return _DIFF_ID + diff_id
    return f"{_REFUSED}the archive has the diff ID {diff_id}, which makes another chain ID than {chain}"


def chain_id(digests: Sequence[str]) -> str:
    """Return the chain ID of a first chain or diff ID and the diff IDs on it (OCI image specification)."""
    chain = digests[0]
    for diff_id in digests[1:]:
        chain = "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest()
    return chain
