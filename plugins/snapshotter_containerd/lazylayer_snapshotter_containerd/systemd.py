"""Tell systemd how the daemon is: that it is ready, and again and again that it answers (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path

import grpc

from lazylayer_snapshotter_containerd.api import snapshots as api
from lazylayer_snapshotter_containerd.logger import logger

__all__ = ["Watchdog", "notify", "watchdog_seconds"]

_PROBES = 3
"""Probes in the time after which systemd takes a silent process for stuck."""


def notify(state: str) -> None:
    """Notify systemd of a state, if it started this process."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            logger.warning("systemd was not told {state}: {error}", state=state, error=error)


def watchdog_seconds(environment: Mapping[str, str] = os.environ) -> float:
    """Return the seconds of silence after which systemd ends this process; 0 if it does not watch it."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0


class Watchdog:
    """A thread that calls the daemon at its own socket, as containerd does, and tells systemd when it answers.

    A daemon that answers no more is ended by systemd after `seconds`; its mounts wait for the next one.
    """

    def __init__(self, listen: Path, seconds: float) -> None:
        self._listen = listen
        self._interval = seconds / _PROBES
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="lazylayer-watchdog", daemon=True).start()

    def close(self) -> None:
        """Stop probing."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(self._interval):
            reason = probe(self._listen, self._interval)
            if not reason:
                notify("WATCHDOG=1")
            elif not self._closed.is_set():
                logger.error("the daemon does not answer at its own socket: {reason}", reason=reason)


def probe(listen: Path, timeout: float) -> str:
    """Make one call that goes all the way to the database, on a connection of its own; return why it failed."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"unix:{listen}", options=options) as channel:
        stat = channel.unary_unary(f"/{api.SERVICE}/Stat")
        try:
            stat(api.StatSnapshotRequest("lazylayer", "lazylayer watchdog").encode(), timeout=timeout)
        except grpc.RpcError as error:
            return "" if error.code() == grpc.StatusCode.NOT_FOUND else f"{error.code().name}: {error.details()}"
    return ""
