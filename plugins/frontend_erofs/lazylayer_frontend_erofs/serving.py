"""Serve one image file to the kernel over /dev/fuse."""

from __future__ import annotations

import os
from collections.abc import Callable

from lazylayer_frontend_erofs.image import Image
from lazylayer_frontend_erofs.kernel import mount_erofs, mount_file
from lazylayer_frontend_erofs.options import Options
from lazylayer_frontend_erofs.server import ImageServer

__all__ = ["make_server", "serve_image"]

_DEVICE = "/dev/fuse"


def serve_image(
    image: Image, source: str, own: Options, on_end: Callable[[], None] = lambda: None
) -> tuple[ImageServer, int]:
    """Serve an image and mount it; return the server and the mount's descriptor. Raises OSError."""
    device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        file = mount_file(device, max_read=own.max_read)
    except BaseException:
        os.close(device)
        raise
    server = make_server(device, image, own, on_end)
    server.start()
    try:
        mounted = mount_erofs(f"/proc/self/fd/{file}", source, direct=own.direct)
    finally:
        # From here on EROFS keeps the file open; if it does not, the server ends.
        os.close(file)
    return server, mounted


def make_server(device: int, image: Image, own: Options, on_end: Callable[[], None]) -> ImageServer:
    """Make a server of `image` on an open /dev/fuse, as the options say; it is not started yet."""
    return ImageServer(
        device,
        image,
        threads=own.threads,
        max_read=own.max_read,
        max_background=own.max_background,
        direct=own.direct,
        on_end=on_end,
    )
