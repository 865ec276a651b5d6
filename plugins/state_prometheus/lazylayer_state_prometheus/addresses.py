"""Parse the address that metrics are served on."""

from __future__ import annotations

from lazylayer.errors import ConfigurationError

__all__ = ["parse_address"]


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `[ADDRESS]:PORT`. Raises ConfigurationError."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        key = "plugin.state_prometheus.address"
        message = f"{key}: invalid address {address!r}; expected HOST:PORT or the absolute path of a socket"
        raise ConfigurationError(message, key=key)
    return host, int(port)
