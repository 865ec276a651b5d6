"""The layer formats of one program, as its plugins describe them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.layers import FormatInfo

__all__ = ["Formats"]


class Formats:
    """The formats that plugins described, each with the plugin's name. Immutable.

    If two formats have the same name, the plugin that is asked first wins.
    """

    def __init__(self, described: Iterable[tuple[str, FormatInfo]]) -> None:
        listed = list(described)
        self._infos = tuple(info for _, info in listed)
        self._by_name: dict[str, tuple[str, FormatInfo]] = {}
        for plugin, info in listed:
            self._by_name = {**dict.fromkeys(info.names, (plugin, info)), **self._by_name}

    def __iter__(self) -> Iterator[FormatInfo]:
        return iter(self._infos)

    @property
    def annotations(self) -> frozenset[str]:
        """The annotations that describe a layer's bytes in any format; they are void for other bytes."""
        return frozenset(
            name for info in self for name in (*info.annotations, info.toc_digest_label, *info.other_promises)
        )

    @property
    def toc_digest_labels(self) -> frozenset[str]:
        """The labels that hold the TOC digest of a layer, of all formats."""
        return frozenset(info.toc_digest_label for info in self)

    def plugin(self, name: str) -> str | None:
        """Return the plugin whose format has this name, or None."""
        return self._by_name[name][0] if name in self._by_name else None

    def info(self, name: str) -> FormatInfo:
        """Return what the format of this name is; if no plugin describes it, it has eStargz's label."""
        return self._by_name[name][1] if name in self._by_name else FormatInfo((name,), (), TOC_DIGEST)
