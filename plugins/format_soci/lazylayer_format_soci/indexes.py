"""Find the index of an image, and the zTOC of each layer in it.

An image's manifest names its index by digest (SOCI's version 2), so what the index says is verified as far as the
manifest is. A client may name one by a label instead.

Every mount by labels asks, so answers are kept, and those who ask for the same index at the same time share one
request. The lock is `IndexFinder._lock`; no request is made while it is held.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from lazylayer.api.oci import Digest, Manifest, parse_digest
from lazylayer.api.opened import CompanionImages
from lazylayer.errors import FormatError
from lazylayer_format_soci.annotations import (
    INDEX_DIGEST,
    INDEX_LABEL,
    INDEX_TYPES,
    LAYER_DIGEST,
    ZTOC_DIGEST,
    ZTOC_SIZE,
)
from lazylayer_manifests import decode_manifest_or_index

__all__ = ["Found", "IndexFinder"]

Found = Mapping[Digest, Mapping[str, str]]
"""Annotations by the digest of the layer."""

_KEPT = 64
"""Answers to keep."""


class IndexFinder:
    """Finds the indexes of images. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: OrderedDict[Digest, Future[Found]] = OrderedDict()

    def find(self, manifest_digest: Digest | None, labels: Mapping[str, str], companions: CompanionImages) -> Found:
        """Return the zTOCs of an image's layers; none if it has no index.

        Raises ResolveError, FormatError or VerificationError if it has one that cannot be read.
        """
        named = labels.get(INDEX_LABEL)
        if named:
            index = parse_digest(named)
            return self._once(index, lambda: _ztocs(_read(index, companions), index))
        if manifest_digest is None:
            return {}
        digest = parse_digest(manifest_digest)  # a label may say anything
        return self._once(digest, lambda: _by_manifest(digest, companions))

    def _once(self, key: Digest, find: Callable[[], Found]) -> Found:
        with self._lock:
            answer = self._answers.get(key)
            mine = answer is None
            if answer is None:
                answer = self._answers[key] = Future()
            self._answers.move_to_end(key)
            if len(self._answers) > _KEPT:
                self._answers.popitem(last=False)
        if mine:
            try:
                answer.set_result(find())
            except BaseException as error:
                answer.set_exception(error)
                with self._lock:  # the next one asks again
                    if self._answers.get(key) is answer:
                        del self._answers[key]
                raise
        return answer.result()


def _by_manifest(digest: Digest, companions: CompanionImages) -> Found:
    manifest = _read(digest, companions)
    named = manifest.annotations.get(INDEX_DIGEST)
    if not named:
        return {}
    index = parse_digest(named)
    layers = {layer.digest for layer in manifest.layers}
    found = _ztocs(_read(index, companions), index)
    return {layer: annotations for layer, annotations in found.items() if layer in layers}


def _read(digest: Digest, companions: CompanionImages) -> Manifest:
    manifest = decode_manifest_or_index(companions.read_manifest(digest), digest)
    if not isinstance(manifest, Manifest):
        raise FormatError(f"{digest} is an index of images, not a manifest")
    return manifest


def _ztocs(index: Manifest, digest: Digest) -> Found:
    """Return the zTOCs that an index names, by layer. An index may leave out layers."""
    if index.config.media_type not in INDEX_TYPES:
        raise FormatError(f"{digest} is not an index of SOCI: its config is {index.config.media_type[:100]!r}")
    found: dict[Digest, Mapping[str, str]] = {}
    for ztoc in index.layers:
        layer = ztoc.annotations.get(LAYER_DIGEST)
        # Prefetch artifacts name their layer too.
        if layer and ztoc.media_type == "application/octet-stream":
            found.setdefault(parse_digest(layer), {ZTOC_DIGEST: ztoc.digest, ZTOC_SIZE: str(ztoc.size)})
    return found
