"""Open the files of an OCI image layout, in a directory or inside an uncompressed tar archive.

Source: the OCI image specification, `image-layout.md`. An `oci-archive` is a tar archive of such a
directory.
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
    """`size` bytes from `start` of the open file `descriptor`, which the caller closes."""

    descriptor: int
    start: int
    size: int


def blob_name(digest: Digest) -> str:
    """Return the name of a blob in a layout."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


class LayoutFiles:
    """The files of one layout, by name. Safe to use from any thread.

    :param members: offset and size of each file in an archive; None for a directory.
    """

    def __init__(self, path: Path, members: dict[str, tuple[int, int]] | None) -> None:
        self.path = path
        self._members = members

    def open(self, name: str) -> FilePart:
        """Open the file `name`. Raises NotFoundError, or UnavailableError if opening fails."""
        if self._members is None:
            descriptor = _open_file(self.path / name)
            return FilePart(descriptor, 0, os.fstat(descriptor).st_size)
        if name not in self._members:
            raise NotFoundError(f"{self.path}: no file {name} in the archive")
        return FilePart(_open_file(self.path), *self._members[name])

    def read(self, name: str, limit: int) -> bytes:
        """Return a file's bytes. Raises FormatError above `limit` bytes, otherwise as `open`."""
        part = self.open(name)
        try:
            if part.size > limit:
                raise FormatError(f"{self.path}: {name}: {part.size} bytes exceed the limit of {limit}")
            return os.pread(part.descriptor, part.size, part.start)
        finally:
            os.close(part.descriptor)


def open_layout(reference: Reference) -> LayoutFiles:
    """Open the layout of a reference with the scheme `oci`, `oci-archive` or `docker-archive`.

    Raises NotFoundError, UnavailableError, or FormatError for a file that is not a tar archive.
    """
    path = Path(reference.repository)
    if reference.scheme == "oci":
        if not path.is_dir():
            raise NotFoundError(f"{reference}: no such directory: {path}")
        return LayoutFiles(path, None)
    return LayoutFiles(path, _index_archive(path))


def _open_file(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{path}: no such file") from None
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotFoundError(f"{path}: not a regular file")
    return descriptor


def _index_archive(path: Path) -> dict[str, tuple[int, int]]:
    """Return offset and size in bytes of each file in an archive. Reads the headers only."""
    import tarfile

    members: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    try:
        with _opened(path) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
            end = os.fstat(descriptor).st_size
            with tarfile.TarFile(fileobj=file, mode="r") as archive:
                for number, member in enumerate(archive):
                    if number >= _MAX_MEMBERS:
                        raise FormatError(f"{path}: more than {_MAX_MEMBERS} files in the archive")
                    if member.isreg() and member.offset_data + member.size <= end:
                        members[os.path.normpath(member.name)] = (member.offset_data, member.size)
                    elif member.issym() or member.islnk():
                        # Old versions of `docker save` wrote equal layers as links to the first one.
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
