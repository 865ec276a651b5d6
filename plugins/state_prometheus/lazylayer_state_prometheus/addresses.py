"""Parse the address that metrics are served on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazylayer.errors import ConfigurationError

if TYPE_CHECKING:
    pass

__all__ = ["parse_address"]


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[ADDRESS]:PORT`. Raises ConfigurationError."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        key = "plugin.state_prometheus.address"
        message = f"{key}: {address!r} is neither HOST:PORT nor the absolute path of a socket"
        raise ConfigurationError(message, key=key)
    return host, int(port)
