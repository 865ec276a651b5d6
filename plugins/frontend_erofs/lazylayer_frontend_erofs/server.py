"""Serve an image file to the kernel, straight on /dev/fuse.

Threads read requests and answer them. A read of metadata is answered at once; for a read of data,
which may wait for the network, another thread takes over the waiting for requests, and is made if
there is none. The kernel reads through its own cache, so that there are few requests.

`ImageServer._lock` guards the counts of threads and of users of the descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator

from loguru import logger

from lazylayer.errors import LazylayerError
from lazylayer_frontend_erofs import protocol
from lazylayer_frontend_erofs.image import Image
from lazylayer_frontend_erofs.protocol import HEADER, READ, REPLY, REQUEST_BYTES, Operation

__all__ = ["ImageServer"]

_IDLE_THREADS = 2
_STORE_BYTES = 1024 * 1024
# The file system was unmounted, or the connection aborted, as happens to a mount that is interrupted.
_ENDED = frozenset({errno.ENODEV, errno.ECONNABORTED})
_TAKEN_BACK = frozenset({errno.ENOENT, errno.EINTR, errno.EAGAIN})
"""Errors of reading a request after which the next attempt may work."""
_UNANSWERED = frozenset({Operation.FORGET, Operation.BATCH_FORGET, Operation.INTERRUPT})


class ImageServer:
    """Answers for one image until the kernel lets go of it. Owns the descriptor of /dev/fuse."""

    def __init__(
        self,
        descriptor: int,
        image: Image,
        *,
        threads: int,
        max_read: int,
        max_background: int,
        direct: bool,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._descriptor = descriptor
        self._closed = False
        self._users = 0
        self._image = image
        self._most_threads = threads
        self._max_read = max_read
        self._max_background = max_background
        self._direct = direct
        self._on_end = on_end
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._failing = False
        self._leaving = False
        self._under_way: set[int] = set()
        self.ended = threading.Event()
        """Set when the kernel has let go of the file and the last thread is ending."""

    def start(self) -> None:
        """Start to serve; the kernel must have been given the descriptor before."""
        with self._lock:
            self._start_thread()

    @contextlib.contextmanager
    def descriptor(self) -> Iterator[int]:
        """Lend the /dev/fuse that is served; it stays open until it is given back.

        Raises OSError, ENODEV, if the server has ended: its number may be another file's by now.
        """
        with self._lock:
            if self._closed:
                raise OSError(errno.ENODEV, "the mount is gone")
            self._users += 1
        try:
            yield self._descriptor
        finally:
            with self._lock:
                self._users -= 1
            self._close_if_unused()

    def resend(self) -> None:
        """Ask the kernel to resend requests that the previous server read but never answered. Raises OSError."""
        with self.descriptor() as descriptor:
            os.write(descriptor, REPLY.pack(REPLY.size, protocol.NOTIFY_RESEND, 0))

    def store_metadata(self, limit: int) -> None:
        """Put up to `limit` bytes of metadata into the kernel's cache, so that it need not ask for them.

        If that is all of them, the image releases its own copy. Raises OSError.
        """
        metadata = self._image.metadata[:limit]
        with self.descriptor() as descriptor:
            for start in range(0, len(metadata), _STORE_BYTES):
                os.writev(descriptor, protocol.store_notice(start, metadata[start : start + _STORE_BYTES]))
        if len(metadata) == self._image.metadata_size:
            self._image.release_metadata()

    def fail(self) -> None:
        """Answer every read with EIO from now on, including those that are waiting."""
        self._failing = True
        with contextlib.suppress(OSError), self.descriptor():
            for unique in list(self._under_way):
                self._reply_error(unique, errno.EIO)

    def leave(self) -> None:
        """Stop answering. Pending and new requests wait for the next server of the descriptor."""
        self._leaving = True

    # --- threads -----------------------------------------------------------------------------------

    def _start_thread(self) -> None:
        self._threads += 1
        self._idle += 1
        threading.Thread(target=self._serve, name="lazylayer-erofs", daemon=True).start()

    def _serve(self) -> None:
        while (request := self._next_request()) and self._serve_one(request):
            pass
        with self._lock:
            self._threads -= 1
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        """Close the descriptor once no thread serves it and no caller uses it; a server that left keeps it."""
        with self._lock:
            if self._threads or self._users or self._closed or self._leaving:
                return
            self._closed = True
        os.close(self._descriptor)
        self._on_end()
        self.ended.set()

    def _next_request(self) -> bytes:
        """Return the next request; empty when there will be no more."""
        while True:
            try:
                request = os.read(self._descriptor, REQUEST_BYTES)
            except OSError as error:
                if error.errno in _TAKEN_BACK:
                    continue
                if error.errno not in _ENDED:
                    logger.error("EROFS image server: {error}", error=error)
                request = b""
            if not request or self._leaving:
                with self._lock:
                    self._idle -= 1
                return b""
            return request

    def _serve_one(self, request: bytes) -> bool:
        """Answer a request; return False if this thread is to end."""
        try:
            _, operation, unique, *_ = HEADER.unpack_from(request)
            if operation != Operation.READ:
                self._answer(operation, unique, request)
                return True
            _, offset, size, *_ = READ.unpack_from(request, HEADER.size)
        except struct.error:
            logger.error("EROFS image server: a request of {size} bytes is too short", size=len(request))
            return True
        if self._image.is_metadata(offset, size):
            self._read(unique, offset, size)
            return True
        with self._lock:
            self._idle -= 1
            if not self._idle and self._threads < self._most_threads:
                self._start_thread()
        self._read(unique, offset, size)
        with self._lock:
            if self._idle >= _IDLE_THREADS:
                return False
            self._idle += 1
        return True

    # --- answers -----------------------------------------------------------------------------------

    def _read(self, unique: int, offset: int, size: int) -> None:
        self._under_way.add(unique)
        try:
            if self._failing or size > self._max_read:
                self._reply_error(unique, errno.EIO)
                return
            self._reply(unique, self._image.read(offset, size))
        except LazylayerError:
            self._reply_error(unique, errno.EIO)
        except BaseException as error:  # noqa: BLE001 - the kernel waits for an answer, whatever happens
            logger.error("EROFS read: {kind}: {error}", kind=type(error).__name__, error=error)
            self._reply_error(unique, errno.EIO)
        finally:
            self._under_way.discard(unique)

    def _answer(self, operation: int, unique: int, request: bytes) -> None:
        if operation in _UNANSWERED:
            return
        size = self._image.size
        if operation == Operation.GETATTR:
            self._reply(unique, [protocol.attributes_reply(size)])
        elif operation == Operation.OPEN:
            self._reply(unique, [protocol.open_reply(direct=self._direct)])
        elif operation == Operation.STATFS:
            self._reply(unique, [protocol.statfs_reply(size)])
        elif operation in (Operation.RELEASE, Operation.FLUSH, Operation.DESTROY):
            self._reply(unique, [])
        elif operation == Operation.INIT:
            try:
                reply = protocol.init_reply(request, max_read=self._max_read, max_background=self._max_background)
            except ValueError as error:
                logger.error("EROFS image server: {error}", error=error)
                self._reply_error(unique, errno.EPROTO)
            else:
                self._reply(unique, [reply])
        else:
            self._reply_error(unique, errno.ENOSYS)

    def _reply(self, unique: int, parts: list[bytes | memoryview]) -> None:
        length = REPLY.size + sum(map(len, parts))
        try:
            os.writev(self._descriptor, [REPLY.pack(length, 0, unique), *parts])
        except OSError as error:
            # ENOENT: it was answered by `fail`, or its reader is gone. ENODEV: the mount is.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                logger.error("EROFS image server: an answer was refused: {error}", error=error)
                self._reply_error(unique, errno.EIO)

    def _reply_error(self, unique: int, number: int) -> None:
        if self._leaving:
            return
        with contextlib.suppress(OSError):
            os.write(self._descriptor, REPLY.pack(REPLY.size, -number, unique))
