"""The plugin: its hooks, and the indexes that they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lazylayer import hookimpl
from lazylayer_format_soci.annotations import INDEX_LABEL, ZTOC_DIGEST, ZTOC_SIZE

if TYPE_CHECKING:
    from lazylayer.api.layers import FormatInfo, LayerContents
    from lazylayer.api.oci import Descriptor, Digest
    from lazylayer.api.opened import CompanionImages, OpenedBlob
    from lazylayer_format_soci.indexes import IndexFinder

__all__ = ["FormatSoci"]


class FormatSoci:
    """The plugin; it keeps which images have which indexes."""

    def __init__(self) -> None:
        self._finder: IndexFinder | None = None

    @hookimpl
    def lazylayer_describe_format(self) -> FormatInfo:
        """Describe layers with a zTOC."""
        from lazylayer.api.layers import FormatInfo

        return FormatInfo(("soci",), (ZTOC_DIGEST, ZTOC_SIZE, INDEX_LABEL), ZTOC_DIGEST)

    @hookimpl
    def lazylayer_annotate_layers(
        self, manifest_digest: Digest | None, labels: Mapping[str, str], companions: CompanionImages
    ) -> Mapping[Digest, Mapping[str, str]]:
        """Name the zTOC of each layer that the image's index has one of."""
        from lazylayer_format_soci.indexes import IndexFinder

        if self._finder is None:
            self._finder = IndexFinder()
        return self._finder.find(manifest_digest, labels, companions)

    @hookimpl(tryfirst=True)
    def lazylayer_open_layer(
        self, blob: OpenedBlob, descriptor: Descriptor, companions: CompanionImages
    ) -> LayerContents | None:
        """Open layers whose annotations name a zTOC. Asked first: nothing of the blob is read to find out."""
        from lazylayer.api.labels import TOC_DIGEST

        if not descriptor.annotations.get(ZTOC_DIGEST) or descriptor.annotations.get(TOC_DIGEST):
            return None  # a layer with a table of its own is cut into smaller pieces
        from lazylayer_format_soci.reader import open_contents

        return open_contents(blob, descriptor, companions)

    @hookimpl
    def lazylayer_daemon_started(self) -> None:
        """Import the reader."""
        import lazylayer_format_soci.indexes
        import lazylayer_format_soci.reader  # noqa: F401
