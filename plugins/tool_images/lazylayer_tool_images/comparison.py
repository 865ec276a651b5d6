"""Compare the trees of two images.

Names, types, modes, owners, times, links, devices, attributes and contents are compared. Contents are compared by
the digests in the tables of contents. Only a file that is cut into different chunks is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal

import msgspec

from lazylayer.api.tree import Entry
from lazylayer.layers import MergedLayers
from lazylayer_tarlayers.archivetree import entry_differences

__all__ = ["Difference", "compare_images"]

_PIECE = 1024 * 1024


class Difference(msgspec.Struct, frozen=True):
    """One path that differs between two images.

    It is only in the second (`added`), only in the first (`removed`), or in both and `changed`; then
    `what` says how, in words.
    """

    kind: Literal["added", "removed", "changed"]
    path: bytes
    what: tuple[str, ...] = ()


def compare_images(left: MergedLayers, right: MergedLayers, *, times: bool = True) -> Iterator[Difference]:
    """Yield the differences, sorted by path, also below added and removed directories.

    Without `times` modification times may differ. Raises LayerError or ResolveError where contents
    have to be read.
    """
    stack: list[tuple[bytes, Entry | None, Entry | None]] = [(b"", left.tree.root, right.tree.root)]
    while stack:
        path, one, other = stack.pop()
        if one is None:
            yield Difference("added", path)
        elif other is None:
            yield Difference("removed", path)
        elif what := tuple(_compare(left, one, right, other, times)):
            yield Difference("changed", path, what)
        below, beside = (one.children if one else None) or {}, (other.children if other else None) or {}
        prefix = path + b"/" if path else b""
        for name in sorted(below.keys() | beside.keys(), reverse=True):
            stack.append((prefix + name, below.get(name), beside.get(name)))


def _compare(left: MergedLayers, one: Entry, right: MergedLayers, other: Entry, times: bool) -> Iterator[str]:
    yield from entry_differences(one, other, times=times)
    if one.is_file and other.is_file and one.size == other.size and not _same_content(left, one, right, other):
        yield "content"


def _same_content(left: MergedLayers, one: Entry, right: MergedLayers, other: Entry) -> bool:
    chunks, others = _chunks(left, one), _chunks(right, other)
    if [size for size, _ in chunks] == [size for size, _ in others] and all(digest for _, digest in chunks + others):
        return chunks == others
    return _hash(left, one) == _hash(right, other)


def _chunks(image: MergedLayers, entry: Entry) -> list[tuple[int, bytes]]:
    if not entry.chunk_count:
        return []
    table = image.layers[entry.layer].contents.chunks
    numbers = range(entry.first_chunk, entry.first_chunk + entry.chunk_count)
    return [(table.place(number)[1], table.digest(number)) for number in numbers]


def _hash(image: MergedLayers, entry: Entry) -> bytes:
    content = hashlib.sha256()
    for offset in range(0, entry.size, _PIECE):
        content.update(image.read(entry, offset, _PIECE))
    return content.digest()
