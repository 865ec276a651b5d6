"""Find out of each layer of an image whether it can be lazy, and if not, why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from lazylayer.errors import FormatError, LayerError, LazylayerError

if TYPE_CHECKING:
    from lazylayer.api.oci import Descriptor, ResolvedImage
    from lazylayer.mounts import Filesystem

__all__ = ["LayerReport", "examine_layers"]


class LayerReport(msgspec.Struct, frozen=True):
    """One layer: `format` is empty if it cannot be lazy, and `reason` says why. Sizes in bytes.

    `plain_size`, `files` and `chunks` are of a lazy layer. `opened_with` counts the bytes that opening it fetched;
    it is 0 if the cache had them.
    """

    digest: str
    media_type: str
    size: int
    format: str = ""
    reason: str = ""
    plain_size: int = 0
    files: int = 0
    chunks: int = 0
    toc_digest: str = ""
    opened_with: int = 0
    requests: int = 0
    source: str = ""


def examine_layers(filesystem: Filesystem, resolved: ResolvedImage) -> Iterator[LayerReport]:
    """Open each layer by itself, the lowest first, and report it. Fetches tables of contents, and no files."""
    for layer in resolved.manifest.layers:
        yield _examine(filesystem, resolved, layer)


def _examine(filesystem: Filesystem, resolved: ResolvedImage, layer: Descriptor) -> LayerReport:
    report = LayerReport(layer.digest, layer.media_type, layer.size)
    try:
        lease = filesystem.layers.lend(resolved.reference, layer)
    except FormatError as error:
        why = f"no table of contents: {error}; convert the image with `lazylayer convert`"
        return msgspec.structs.replace(report, reason=why)
    except LayerError as error:
        return msgspec.structs.replace(report, reason=f"it is damaged, or not what the manifest promises: {error}")
    except LazylayerError as error:
        return msgspec.structs.replace(report, reason=f"its source does not give it: {error}")
    try:
        opened, state = lease.layer, lease.layer.state()
        return msgspec.structs.replace(
            report,
            format=opened.contents.format,
            plain_size=opened.contents.chunks.total_size,
            files=sum(1 for _ in opened.tree.walk()),
            chunks=len(opened.contents.chunks),
            toc_digest=opened.contents.toc_digest,
            opened_with=state.network_bytes,
            requests=state.requests,
            source=state.source,
        )
    finally:
        lease.close()
