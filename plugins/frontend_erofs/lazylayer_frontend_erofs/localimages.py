"""Whole images on disk: of a layer that is complete, so that the kernel needs no server to show it.

An image file holds what `Image` serves, the metadata and then all data, written from verified reads.
Beside it lies a record of its digest, and of the boot in which the file was last known to match it,
with the file's inode and times. A file is mounted only if nothing has touched it since then; after a
restart of the machine it is first read whole, behind the back of a mount that is served, and
counts from the next mount on. What was damaged is removed, and written again.

From a mount on, what is read comes from the file system that the file is on, like the files of any
container that was unpacked.

Any number of processes may share the directory; it is for its owner only. No lock is held. Files that are mounted
count towards the limit and are not evicted; what other mount namespaces show is not known here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from loguru import logger

from lazylayer import __version__
from lazylayer.api.decoding import decode_json
from lazylayer.errors import FormatError
from lazylayer_frontend_erofs.image import Image
from lazylayer_frontend_erofs.notes import short_uuid, shown_images
from lazylayer_newfiles import NewFiles

__all__ = ["LocalImages"]

_PIECE = 1024 * 1024
_ZEROS = bytes(_PIECE)
_SPARE_FRACTION = 20
"""One part in so many of the file system is left free."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class _Record(msgspec.Struct, frozen=True):
    """The digest of an image file, and how the file looked when it was found to match, in which boot."""

    image: str
    digest: str
    boot: str
    inode: int
    modified: int
    changed: int

    def is_of(self, status: os.stat_result) -> bool:
        """Return True if nothing has touched the file since it was found to match, in this boot."""
        known = self.boot, self.inode, self.modified, self.changed
        return known == (_boot(), status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


class _File(NamedTuple):
    """An image file: its size in bytes, when it was mounted last, and whether it is mounted now."""

    path: Path
    size: int
    used: int
    mounted: bool


class LocalImages:
    """The image files below `root`, at most `limit` bytes of them. Safe to use from any thread.

    `is_ending` is asked between pieces of long work; it is given up when that says True.
    """

    def __init__(self, root: Path, limit: int, is_ending: Callable[[], bool]) -> None:
        self.directory = root / "frontend_erofs" / "images"
        self._limit = limit
        self._new = NewFiles(str(self.directory), ".new-")
        with contextlib.suppress(OSError):
            self._new.sweep()
        self._is_ending = is_ending

    def forget(self, identity: str) -> None:
        """Remove the file of an image. A mount of it goes on."""
        self._remove(self._path(identity))

    def open(self, identity: str, image: Image) -> int | None:
        """Return a descriptor of the image's file, for the caller to close; None unless it is known to be good."""
        path = self._path(identity)
        try:
            record = self._record(path)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (OSError, FormatError):
            return None
        status = os.fstat(descriptor)
        if record.image == image.name and record.is_of(status) and status.st_size == image.size:
            with contextlib.suppress(OSError):
                os.utime(_record_path(path))
            return descriptor
        os.close(descriptor)
        return None

    def make(self, identity: str, image: Image) -> bool:
        """Ensure that a verified image file exists. Return False if the disk is full or read-only.

        An existing file is read whole, and kept if it is good; otherwise the image is read and written.
        Raises LazylayerError if the image cannot be read.
        """
        path = self._path(identity)
        if self._is_good(path, image):
            return True
        try:
            if not self._evict(path, image.size) or not self._has_room(image.size):
                return False
            with self._new.create() as (descriptor, temporary):
                digest = self._write(image, descriptor)
                if not digest:
                    return False
                status = os.fstat(descriptor)
                Path(temporary).replace(path)
                # Renaming changes the time of change.
                self._note(path, image, digest, path.stat() if path.stat().st_ino == status.st_ino else status)
            self._evict(path)  # other processes may have written meanwhile
        except OSError as error:
            logger.warning("a layer is not kept as a local image: {error}", error=error)
            return False
        return True

    # --- one file ----------------------------------------------------------------------------------

    def _is_good(self, path: Path, image: Image) -> bool:
        """Read a file whole and compare its digest; note that it is good, or remove it."""
        try:
            record = self._record(path)
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if record.is_of(status) and record.image == image.name:
                    return True
                digest = hashlib.sha256()
                while piece := file.read(_PIECE):
                    if self._is_ending():
                        return False
                    digest.update(piece)
            if (digest.hexdigest(), record.image, status.st_size) == (record.digest, image.name, image.size):
                self._note(path, image, record.digest, status)
                return True
        except FileNotFoundError:
            return False
        except (OSError, FormatError) as error:
            logger.warning("{path}: {error}", path=str(path), error=error)
        else:
            logger.warning("{path} is damaged; it is written again", path=str(path))
        self._remove(path)
        return False

    def _write(self, image: Image, descriptor: int) -> str:
        """Write an image and return its digest; empty if the program ends."""
        digest = hashlib.sha256()
        for offset in range(0, image.size, _PIECE):
            if self._is_ending():
                return ""
            for part in image.read(offset, _PIECE):
                digest.update(part)
                _append(descriptor, part)
        os.truncate(descriptor, image.size)
        os.fsync(descriptor)  # what is not on the disk yet must not be read past the page cache
        return digest.hexdigest()

    def _note(self, path: Path, image: Image, digest: str, status: os.stat_result) -> None:
        record = _Record(image.name, digest, _boot(), status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        with self._new.create() as (descriptor, temporary):
            _append(descriptor, msgspec.json.encode(record))
            Path(temporary).replace(_record_path(path))

    def _record(self, path: Path) -> _Record:
        return decode_json(_record_path(path).read_bytes(), _Record)

    def _path(self, identity: str) -> Path:
        # What another version of the program made of a tree may not be what this one would.
        name = hashlib.sha256(f"{__version__} {identity}".encode()).hexdigest()
        return self.directory / f"{name}.erofs"

    # --- room --------------------------------------------------------------------------------------

    def _has_room(self, size: int) -> bool:
        if size > self._limit:
            return False
        place = self.directory
        while not place.exists():
            place = place.parent
        status = os.statvfs(place)
        spare = status.f_blocks // _SPARE_FRACTION
        return (status.f_bavail - spare) * status.f_frsize >= size

    def _evict(self, newest: Path, size: int = 0) -> bool:
        """Evict the files mounted longest ago until `size` bytes fit within the limit; return False if they do not.

        A file that is mounted stays: removing it would free nothing before the unmount.
        """
        known = sorted(self._files(), key=lambda each: each.used)
        total = size + sum(each.size for each in known)
        fixed = size + sum(each.size for each in known if each.mounted)
        for each in known if fixed <= self._limit else ():
            if total > self._limit and not each.mounted and each.path != newest:
                self._remove(each.path)
                total -= each.size
        return total <= self._limit

    def _files(self) -> Iterator[_File]:
        """Yield the files; one without a record, which a killed process left, was never used."""
        mounted = shown_images()
        for path in self.directory.glob("*.erofs"):
            with contextlib.suppress(FileNotFoundError):
                size = path.stat().st_size
                try:
                    used, image = _record_path(path).stat().st_mtime_ns, self._record(path).image
                except (FileNotFoundError, FormatError):
                    used, image = 0, ""
                yield _File(path, size, used, bool(image) and short_uuid(image) in mounted)

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            _record_path(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def _append(descriptor: int, data: bytes | memoryview) -> None:
    """Append data; leave a hole for zeros, so that sparse files stay sparse."""
    if data == _ZEROS[: len(data)]:
        os.lseek(descriptor, len(data), os.SEEK_CUR)
        return
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _record_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _boot() -> str:
    return _BOOT_ID.read_text().strip()
