"""Make an endpoint from its configuration in our own tables or in hosts.toml."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lazylayer.errors import ConfigurationError
from lazylayer_resolver_registry.connections import ConnectionOptions
from lazylayer_resolver_registry.endpoints import CAPABILITIES, Endpoint, make_endpoint
from lazylayer_resolver_registry.options import EndpointOptions, Headers

__all__ = ["configured_endpoint"]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_RESERVED = frozenset({"host", "range", "content-length", "transfer-encoding", "connection"})


def configured_endpoint(
    server: str,
    registry: str,
    options: EndpointOptions,
    where: str,
    *,
    default: Iterable[str],
    directory: Path = Path(),
    plain_http: bool = False,
    mirror: bool = False,
) -> Endpoint:
    """Return the endpoint at `server` for the images of `registry`.

    :param where: the table or file, for errors.
    :param default: the capabilities if none are configured.
    :param directory: the base of relative file names.

    Raises ConfigurationError.
    """
    try:
        return make_endpoint(
            server,
            registry,
            plain_http=plain_http,
            override_path=options.override_path,
            capabilities=_capabilities(options.capabilities or default),
            headers=_headers(options.header),
            connection=_connection(options, directory),
            mirror=mirror,
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}", key="resolver.hosts") from error


def _connection(options: EndpointOptions, directory: Path) -> ConnectionOptions:
    ca = [options.ca] if isinstance(options.ca, str) else options.ca or []
    client = [options.client] if isinstance(options.client, str) else options.client or []
    return ConnectionOptions(
        ca=tuple(str(directory / file) for file in ca),
        client=tuple(_pair(each, directory) for each in client),
        skip_verify=options.skip_verify,
        connect_timeout=options.dial_timeout,
        idle_timeout=options.idle_timeout,
        proxy=_proxy(options.proxy),
    ).stamped()


def _pair(files: str | list[str], directory: Path) -> tuple[str, str]:
    """Return the files of a certificate and its key; an empty key means the certificate's file."""
    if isinstance(files, str):
        return str(directory / files), ""
    if len(files) != 2:
        raise ConfigurationError(f"client: {files}: expected a pair of certificate and key")
    return str(directory / files[0]), str(directory / files[1]) if files[1] else ""


def _capabilities(names: Iterable[str]) -> frozenset[str]:
    found = frozenset(each.lower() for each in names)
    if unknown := found - set(CAPABILITIES):
        raise ConfigurationError(f"unknown capability {min(unknown)}; expected one of {', '.join(CAPABILITIES)}")
    return found


def _headers(table: Headers) -> tuple[tuple[str, str], ...]:
    headers = [
        (name, value) for name, values in table.items() for value in ([values] if isinstance(values, str) else values)
    ]
    for name, value in headers:
        if not _HEADER_NAME.fullmatch(name) or not value.isprintable() or not value.isascii():
            raise ConfigurationError(f"header {name!r}: invalid characters in its name or value")
        if name.lower() in _RESERVED:
            raise ConfigurationError(f"header {name}: lazylayer sets it; remove it")
    return tuple(headers)


def _proxy(url: str) -> str:
    if url and not re.fullmatch(r"(?:https?|socks5h?)://[^/?#]+/?", url):
        raise ConfigurationError("proxy: expected http://host:port, https:// or socks5://, without a path")
    return url
