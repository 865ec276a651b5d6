"""Read containerd's directories of registry hosts: `HOST/hosts.toml`, or Docker's certificate files.

Source: containerd 2.x, docs/hosts.md and core/remotes/docker/config. Two differences: an invalid file
is an error, where containerd ignores it; and `http://` always means plain HTTP, even if certificates
are configured.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from lazylayer.api.units import explain_value, with_units
from lazylayer.errors import ConfigurationError
from lazylayer_resolver_registry.endpointoptions import configured_endpoint
from lazylayer_resolver_registry.endpoints import CAPABILITIES, Endpoint
from lazylayer_resolver_registry.options import EndpointOptions

__all__ = ["read_hosts"]

_MAX_SIZE = 1024 * 1024
_DEFAULT = "_default"
_FILE = "hosts.toml"


class _Host(EndpointOptions, frozen=True, forbid_unknown_fields=False, kw_only=True):
    """One host in hosts.toml; unknown keys of newer versions are ignored, as in containerd."""


class _File(_Host, frozen=True, forbid_unknown_fields=False, kw_only=True):
    server: str = ""
    host: dict[str, _Host] = msgspec.field(default_factory=dict)


def read_hosts(root: Path, host: str, plain_http: bool = False) -> tuple[Endpoint, ...] | None:
    """Return the endpoints that the registry's directory below `root` names, or None without one.

    Raises ConfigurationError naming the file.
    """
    try:
        directory = _find(root, host)
        if directory is None:
            return None
        file = directory / _FILE
        data = _read(file)
        if not data.strip():
            options = _certificates(directory)
            return (
                configured_endpoint(host, host, options, str(directory), default=CAPABILITIES, plain_http=plain_http),
            )
    except OSError as error:
        raise ConfigurationError(f"{error.filename or root}: cannot read it: {error.strerror}") from error
    parsed = _parse(file, data)
    # TOML tables keep the file's order, which is the order in which hosts are tried.
    mirrors = [
        configured_endpoint(url, host, each, str(file), default=CAPABILITIES, directory=directory, mirror=True)
        for url, each in parsed.host.items()
    ]
    server = parsed.server or host
    plain_http = plain_http and not parsed.server
    origin = configured_endpoint(
        server, host, parsed, str(file), default=CAPABILITIES, directory=directory, plain_http=plain_http
    )
    return (*mirrors, origin)


def _read(file: Path) -> bytes:
    """Return the file's bytes, b"" without a file; at most one byte more than `_MAX_SIZE`."""
    try:
        with file.open("rb") as stream:
            return stream.read(_MAX_SIZE + 1)
    except FileNotFoundError:
        return b""


def _find(root: Path, host: str) -> Path | None:
    name, colon, port = host.rpartition(":")
    names = [f"{name}_{port}_"] if colon and port.isdigit() else []
    for each in (*names, host, _DEFAULT):
        # A host has no slash, but `..` would leave the directory.
        if each not in (".", "..") and (root / each).is_dir():
            return root / each
    return None


def _parse(file: Path, data: bytes) -> _File:
    if len(data) > _MAX_SIZE:
        raise ConfigurationError(f"{file}: larger than {_MAX_SIZE} bytes")
    try:
        return msgspec.convert(with_units(tomllib.loads(data.decode()), _File), _File)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{file}: {explain_value(None, str(error))}") from error
    except ValueError as error:
        raise ConfigurationError(f"{file}: not TOML: {error}") from error


def _certificates(directory: Path) -> EndpointOptions:
    """Return Docker's certificate files: `*.crt` authorities, `*.cert` and `*.key` client certificates."""
    files = sorted(each for each in directory.iterdir() if each.is_file())
    pairs: list[str | list[str]] = []
    for each in files:
        if each.suffix == ".cert":
            key = each.with_suffix(".key")
            pairs.append([str(each), str(key) if key in files else ""])
    return EndpointOptions(ca=[str(each) for each in files if each.suffix == ".crt"], client=pairs)
