"""Serve the image service until told to end."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import stat
import threading
from pathlib import Path

from loguru import logger

from lazylayer.api.settings import Settings
from lazylayer.errors import ConfigurationError, LazylayerError
from lazylayer_keychain_cri.options import Options, open_store
from lazylayer_keychain_cri.proxy import ImageServiceProxy

__all__ = ["serve_proxy"]


def serve_proxy(settings: Settings, options: Options) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigurationError and LazylayerError."""
    if not options.listen:
        raise ConfigurationError(
            '[plugin.keychain_cri] names no socket; set listen = "/run/lazylayer/cri.sock"',
            key="plugin.keychain_cri.listen",
        )
    listen = Path(options.listen)
    # Memory has the credentials of every pull: none of it goes into a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    lock = _lock(listen)
    try:
        _remove_old_socket(listen)
        proxy = _open_proxy(settings, options)
        try:
            proxy.start()
            logger.info(
                "serving the image service of {backend} on {listen}", backend=options.backend, listen=str(listen)
            )
            _notify_ready()
            while not stopped.wait(0.5):  # a signal that another thread gets does not end a wait
                pass
        finally:
            proxy.close()
            listen.unlink(missing_ok=True)
    finally:
        os.close(lock)


def _open_proxy(settings: Settings, options: Options) -> ImageServiceProxy:
    store = open_store(settings, options)
    store.clear_leftovers()
    old_mask = os.umask(0o177)  # the socket is for its owner from the start
    try:
        return ImageServiceProxy(options.listen, options.backend, store)
    except RuntimeError as error:
        raise LazylayerError(f"cannot listen on {options.listen}: {error}") from error
    finally:
        os.umask(old_mask)


def _lock(listen: Path) -> int:
    """Lock the file beside the socket, so that a second proxy does not take the socket of the first."""
    listen.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(f"{listen}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise LazylayerError(f"{listen}: another proxy serves it; end that first") from None
    return lock


def _remove_old_socket(listen: Path) -> None:
    if listen.exists() or listen.is_symlink():
        if not stat.S_ISSOCK(listen.lstat().st_mode):
            raise LazylayerError(f"{listen} exists and is not a socket; remove it, or listen elsewhere")
        listen.unlink()


def _notify_ready() -> None:
    """Notify systemd, if it asked for that (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.send(b"READY=1")
