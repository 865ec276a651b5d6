"""Where the files of an OCI image layout lie: below a directory, or inside an uncompressed tar archive.

Source of the format: the OCI image specification, `image-layout.md`; an `oci-archive` is a tar
archive of such a directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lazylayer.api.oci import Digest, Reference
from lazylayer.errors import FormatError, NotFoundError, UnavailableError

__all__ = ["FilePart", "LayoutFiles", "blob_name", "open_layout"]

_MAX_MEMBERS = 100_000


class FilePart(NamedTuple):
    """`size` bytes from `start` in the open file `descriptor`, which the receiver closes."""

    descriptor: int
    start: int
    size: int


def blob_name(digest: Digest) -> str:
    """The name of a blob in a layout."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


class LayoutFiles:
    """The files of one layout, by name. Safe to use from any thread.

    In an archive `members` says where each file lies; it is None for a directory.
    """

    def __init__(self, path: Path, members: dict[str, tuple[int, int]] | None) -> None:
        self.path = path
        self._members = members

    def open(self, name: str) -> FilePart:
        """The file of this name. Raises NotFoundError, or UnavailableError if it cannot be opened."""
        if self._members is None:
            descriptor = _open_file(self.path / name)
            return FilePart(descriptor, 0, os.fstat(descriptor).st_size)
        if name not in self._members:
            raise NotFoundError(f"{self.path}: there is no {name} in it")
        return FilePart(_open_file(self.path), *self._members[name])

    def read(self, name: str, limit: int) -> bytes:
        """All bytes of a file. Raises FormatError for a file of more than `limit` bytes, and as `open`."""
        part = self.open(name)
        try:
            if part.size > limit:
                raise FormatError(f"{self.path}: {name} has {part.size} bytes, more than {limit}")
            return os.pread(part.descriptor, part.size, part.start)
        finally:
            os.close(part.descriptor)


def open_layout(reference: Reference) -> LayoutFiles:
    """The files that a reference with the scheme `oci`, `oci-archive` or `docker-archive` names.

    Raises NotFoundError, UnavailableError, or FormatError for a file that is no tar archive.
    """
    path = Path(reference.repository)
    if reference.scheme == "oci":
        if not path.is_dir():
            raise NotFoundError(f"{reference}: there is no directory {path}")
        return LayoutFiles(path, None)
    return LayoutFiles(path, _index_archive(path))


def _open_file(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{path} does not exist") from None
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotFoundError(f"{path} is not a regular file")
    return descriptor


def _index_archive(path: Path) -> dict[str, tuple[int, int]]:
    """Where each file lies in an archive: offset and size in bytes. Reads the headers only."""
    import tarfile

    members: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    try:
        with _opened(path) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
            end = os.fstat(descriptor).st_size
            with tarfile.TarFile(fileobj=file, mode="r") as archive:
                for number, member in enumerate(archive):
                    if number >= _MAX_MEMBERS:
                        raise FormatError(f"{path}: more than {_MAX_MEMBERS} files for one image")
                    if member.isreg() and member.offset_data + member.size <= end:
                        members[os.path.normpath(member.name)] = (member.offset_data, member.size)
                    elif member.issym() or member.islnk():
                        # `docker save` once wrote equal layers as links to the first of them.
                        base = os.path.dirname(member.name) if member.issym() else ""  # noqa: PTH120 - not a path here
                        links[os.path.normpath(member.name)] = os.path.normpath(f"{base or '.'}/{member.linkname}")
    except (tarfile.TarError, EOFError) as error:
        raise FormatError(f"{path}: not an uncompressed tar archive: {error}") from error
    members.update({name: members[target] for name, target in links.items() if target in members})
    return members


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = _open_file(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
