"""Resolve image-wide prefetch globs and paths to files of each layer.

They mean the files that the image shows. A file that an upper layer hides, by replacing it, by a whiteout of it or of
a directory above it, or by an opaque directory, is never read, and not chosen. So layers are processed from the
uppermost down.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

from lazylayer.api.tree import Tree, clean_path
from lazylayer.errors import BuildError
from lazylayer_tarlayers.tarmember import Readable
from lazylayer_tarlayers.tarreader import TarReader
from lazylayer_tarlayers.treebuilder import OPAQUE_MARKER, WHITEOUT_PREFIX
from lazylayer_tool_images.profiles import compile_globs

__all__ = ["Name", "PrefetchChoice", "names_in_archive", "names_in_tree"]

Name = tuple[bytes, bool]
"""A clean path in a layer, and True for a directory. Whiteouts have their own names, as in archives."""


def names_in_archive(archive: Readable) -> Iterator[Name]:
    """Yield the names in a tar archive. Raises FormatError and BuildError."""
    for member in TarReader(archive):
        yield clean_path(member.name), member.kind == "dir"


def names_in_tree(tree: Tree) -> Iterator[Name]:
    """Yield the names in the tree of a layer, as they were in its archive."""
    for path, entry in tree.walk():
        directory, _, name = path.rpartition(b"/")
        if entry.whiteout:
            yield clean_path(directory + b"/" + WHITEOUT_PREFIX + name), False
            continue
        yield path, entry.is_directory
        if entry.opaque:
            yield clean_path(path + b"/" + OPAQUE_MARKER), False
        if entry.replacing:
            yield clean_path(directory + b"/" + WHITEOUT_PREFIX + name), False


class PrefetchChoice:
    """Chooses files in an image of `layers` layers, numbered from 0, the lowest. Safe to use from any thread.

    Every layer must be chosen from once; each waits for all layers above it.
    """

    def __init__(self, paths: Sequence[bytes], globs: Sequence[bytes], layers: int) -> None:
        self._paths = paths
        self._patterns = compile_globs(globs)
        self._turn = layers - 1
        self._abandoned = False
        self._changed = threading.Condition()
        self._known: set[bytes] = set()
        self._covered: set[bytes] = set()
        self._opaque: set[bytes] = set()

    def choose(self, number: int, names: Iterable[Name]) -> list[bytes]:
        """Return the files of a layer to put first: in the order of the paths, then in that of `names`.

        Paths are returned whether they are among `names` or not: they may lead through links. Raises
        BuildError when the choice was abandoned.
        """
        listed = list(names)
        with self._changed:
            self._changed.wait_for(lambda: self._turn == number or self._abandoned)
            if self._abandoned:
                raise BuildError("another layer failed to convert")
            wanted = [path for path in self._paths if not self._is_hidden(path)]
            wanted += [
                path
                for path, is_directory in listed
                if not is_directory
                and not path.rpartition(b"/")[2].startswith(WHITEOUT_PREFIX)
                and any(pattern.fullmatch(path) for pattern in self._patterns)
                and not self._is_hidden(path)
            ]
            self._cover(listed)
            self._turn -= 1
            self._changed.notify_all()
        return wanted

    def abandon(self) -> None:
        """End all waiting, since a layer failed."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def _is_hidden(self, path: bytes) -> bool:
        """Return True if the layers above hide a file of this name."""
        if path in self._known:
            return True
        while path:
            path = path.rpartition(b"/")[0]
            if path in self._covered or path in self._opaque:
                return True
        return False

    def _cover(self, names: Iterable[Name]) -> None:
        for path, is_directory in names:
            directory, _, name = path.rpartition(b"/")
            if name == OPAQUE_MARKER:
                self._opaque.add(directory)
                # The directory is there, though nothing may be in it.
                self._know(directory)
                continue
            at = path
            if name.startswith(WHITEOUT_PREFIX):
                at = clean_path(directory + b"/" + name[len(WHITEOUT_PREFIX) :])
            if not is_directory:
                self._covered.add(at)
            self._know(at)

    def _know(self, path: bytes) -> None:
        """Note a path and the directories that it implies, which replace files too."""
        while path not in self._known:
            self._known.add(path)
            path = path.rpartition(b"/")[0]
