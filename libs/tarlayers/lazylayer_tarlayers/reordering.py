"""Put chosen files of a tar archive first, so that the files that are read first lie first.

The archive is kept in a temporary file, uncompressed, unless it is in a file already. Memory stays small.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO, NamedTuple, Self

from lazylayer.api.tree import clean_path
from lazylayer.errors import FormatError
from lazylayer_tarlayers.tarmember import Readable, TarMember
from lazylayer_tarlayers.tarreader import TarReader

__all__ = ["Reordered"]

_MAX_PARENTS = 128 * 1024 * 1024
"""Bytes of directory names. A deep path of few bytes, compressed, has thousands of directories."""
_MAX_LINKS = 40
"""Links that are followed on the way to a file, as in the kernel."""


class _Place(NamedTuple):
    """The place of a member in the temporary file, with the global records in front of it."""

    start: int
    path: bytes
    kind: str
    target: bytes
    globals: Mapping[bytes, bytes]


class Reordered:
    """An archive that is read in another order: `first`, then `rest`. Used by one thread.

    First come the files that `paths` name, in that order, each behind its parent directories, and with
    the symbolic and hard links that lead to it. Paths that are not in the archive are passed over, as are
    members that another one of the same name replaces: the order matters to them.
    """

    def __init__(self, source: IO[bytes], paths: Sequence[bytes]) -> None:
        self._copy = None if source.seekable() else tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this is
        self._file = self._copy or source
        try:
            self._places = list(_index(_Copying(source, self._copy) if self._copy is not None else source))
            self._first = self._choose(paths)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._copy is not None:
            self._copy.close()

    def first(self) -> Iterator[tuple[TarMember, TarReader]]:
        """Yield the chosen members, each with a reader at the beginning of its content."""
        return map(self._open, self._first)

    def rest(self) -> Iterator[tuple[TarMember, TarReader]]:
        """Yield all other members, in the order of the archive."""
        chosen = set(self._first)
        return (self._open(number) for number in range(len(self._places)) if number not in chosen)

    def _open(self, number: int) -> tuple[TarMember, TarReader]:
        place = self._places[number]
        self._file.seek(place.start)
        reader = TarReader(self._file, place.globals)
        member = reader.next()
        assert member is not None
        return member, reader

    def _choose(self, paths: Sequence[bytes]) -> list[int]:
        where: dict[bytes, int] = {}
        replacing: set[bytes] = set()
        repeated: set[bytes] = set()
        parents = _Parents()
        for number, place in enumerate(self._places):
            if place.path in where:
                same = place.kind == self._places[where[place.path]].kind == "dir"
                (repeated if same else replacing).add(place.path)
            where[place.path] = number
            parents.add(place.path)
        # A file that is also a parent takes the place of a directory.
        replacing.update(path for path in parents.paths & where.keys() if self._places[where[path]].kind != "dir")
        chosen: dict[int, None] = {}
        for path in paths:
            chosen.update(dict.fromkeys(self._way_to(clean_path(path), where)))

        def is_bound(path: bytes) -> bool:
            return path in repeated or path in replacing or any(each in replacing for each in _ancestors(path))

        return [number for number in chosen if not is_bound(self._places[number].path)]

    def _way_to(self, path: bytes, where: dict[bytes, int]) -> list[int]:
        """Return the members on the way to a file: its parents first, links around their targets."""
        way: list[int] = []
        waiting = [path]
        for _ in range(_MAX_LINKS):
            if not waiting:
                break
            parts = waiting.pop().split(b"/")
            for depth in range(len(parts) + 1):
                at = b"/".join(parts[:depth])
                number = where.get(at)
                if number is None:
                    continue
                place = self._places[number]
                rest = b"/".join(parts[depth:])
                if place.kind == "symlink":
                    way.append(number)
                    base = b"" if place.target.startswith(b"/") else at.rpartition(b"/")[0]
                    waiting.append(clean_path(b"/".join((base, place.target, rest))))
                    break
                if place.kind == "hardlink":
                    # The target goes first: some extract archives in one pass.
                    waiting.append(clean_path(place.target))
                    way.append(number)
                    break
                way.append(number)
        links = [number for number in way if self._places[number].kind == "hardlink"]
        return [number for number in way if number not in links] + links[::-1]


class _Parents:
    """The directories that paths lie in."""

    def __init__(self) -> None:
        self.paths: set[bytes] = set()
        self._size = 0

    def add(self, path: bytes) -> None:
        """Add the directories of a path. Raises FormatError if their names take too much memory."""
        for parent in _ancestors(path):
            if parent in self.paths:
                return
            self.paths.add(parent)
            self._size += len(parent)
            if self._size > _MAX_PARENTS:
                raise FormatError(f"the names of the archive's directories have more than {_MAX_PARENTS} bytes")


def _ancestors(path: bytes) -> Iterator[bytes]:
    """Yield the directories that a path lies in, the nearest first, without the root."""
    while (path := path.rpartition(b"/")[0]) != b"":
        yield path


class _Copying:
    """Reads a source and writes all that it read to a file."""

    def __init__(self, source: Readable, file: IO[bytes]) -> None:
        self._source = source
        self._file = file

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, as the source gives them."""
        data = self._source.read(size)
        self._file.write(data)
        return data


def _index(source: Readable) -> Iterator[_Place]:
    reader = TarReader(source)
    while True:
        reader.skip()
        start, known = reader.position, reader.globals
        member = reader.next()
        if member is None:
            return
        yield _Place(start, clean_path(member.name), member.kind, member.link_name, known)
