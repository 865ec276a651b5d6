"""The layer formats of one program, as its plugins describe them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.layers import FormatInfo

__all__ = ["Formats"]


class Formats:
    """The formats that plugins described, each with the plugin's name. Immutable.

    If two formats have the same name, the plugin that is asked first wins.
    """

    def __init__(self, described: Iterable[tuple[str, FormatInfo]]) -> None:
        self._described = tuple(described)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all formats, in configured order."""
        return tuple(dict.fromkeys(name for _, info in self._described for name in info.names))

    @property
    def annotations(self) -> frozenset[str]:
        """The annotations that describe a layer's bytes in any format; they are void for other bytes."""
        return frozenset(
            name
            for _, info in self._described
            for name in (*info.annotations, info.toc_digest_label, *info.other_promises)
        )

    @property
    def toc_digest_labels(self) -> frozenset[str]:
        """The labels that hold the TOC digest of a layer, of all formats."""
        return frozenset(info.toc_digest_label for _, info in self._described)

    def plugin(self, name: str) -> str | None:
        """Return the plugin whose format has this name, or None."""
        return next((plugin for plugin, info in self._described if name in info.names), None)

    def toc_digest_label(self, name: str) -> str:
        """Return the label that holds the TOC digest of layers in this format.

        A format that no plugin describes has the label of eStargz.
        """
        return next((info.toc_digest_label for _, info in self._described if name in info.names), TOC_DIGEST)

    def hidden_files(self, name: str) -> tuple[bytes, ...]:
        """Return the files in the root of an archive that a format adds and does not show."""
        return next((info.hidden_files for _, info in self._described if name in info.names), ())

    def promised(self, annotations: Mapping[str, str]) -> bool:
        """Return True if a layer with these annotations is in one of the formats, to be mounted lazily."""
        return any(info.promises(annotations) for _, info in self._described)
