"""containerd's directories of registry hosts: `HOST/hosts.toml`, or Docker's certificate files.

Source: containerd 2.x, docs/hosts.md, and how core/remotes/docker/config reads them. What differs: a
file that cannot be understood is an error, where containerd goes on without it; and a place that is
written as `http://` is spoken to in plain HTTP, whatever is said about certificates.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from lazylayer.errors import ConfigurationError
from lazylayer_resolver_registry.endpoints import CAPABILITIES, Endpoint
from lazylayer_resolver_registry.options import PlaceOptions
from lazylayer_resolver_registry.places import place

__all__ = ["read_hosts"]

_MAX_SIZE = 1024 * 1024
_DEFAULT = "_default"
_FILE = "hosts.toml"


class _Place(PlaceOptions, frozen=True, forbid_unknown_fields=False, kw_only=True):
    """What hosts.toml says about one place; keys of newer versions are passed over, as containerd does."""


class _File(_Place, frozen=True, forbid_unknown_fields=False, kw_only=True):
    server: str = ""
    host: dict[str, _Place] = msgspec.field(default_factory=dict)


def read_hosts(root: Path, host: str, plain_http: bool = False) -> tuple[Endpoint, ...] | None:
    """What the directory below `root` for a registry says, or None if there is none.

    Raises ConfigurationError, which names the file.
    """
    try:
        directory = _find(root, host)
        if directory is None:
            return None
        file = directory / _FILE
        data = _read(file)
        if not data.strip():
            options = _certificates(directory)
            return (place(host, host, options, str(directory), default=CAPABILITIES, plain_http=plain_http),)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or root}: cannot be read: {error.strerror}") from error
    parsed = _parse(file, data)
    # TOML's tables come in the order of the file, which is the order in which they are asked.
    mirrors = [
        place(url, host, each, str(file), default=CAPABILITIES, directory=directory, mirror=True)
        for url, each in parsed.host.items()
    ]
    server = parsed.server or host
    plain_http = plain_http and not parsed.server
    origin = place(server, host, parsed, str(file), default=CAPABILITIES, directory=directory, plain_http=plain_http)
    return (*mirrors, origin)


def _read(file: Path) -> bytes:
    """The file, or nothing if there is none; at most one byte more than is allowed."""
    try:
        with file.open("rb") as stream:
            return stream.read(_MAX_SIZE + 1)
    except FileNotFoundError:
        return b""


def _find(root: Path, host: str) -> Path | None:
    name, colon, port = host.rpartition(":")
    names = [f"{name}_{port}_"] if colon and port.isdigit() else []
    for each in (*names, host, _DEFAULT):
        # A host has no slash, but `..` would do.
        if each not in (".", "..") and (root / each).is_dir():
            return root / each
    return None


def _parse(file: Path, data: bytes) -> _File:
    if len(data) > _MAX_SIZE:
        raise ConfigurationError(f"{file}: larger than {_MAX_SIZE} bytes")
    try:
        return msgspec.convert(tomllib.loads(data.decode()), _File)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{file}: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{file}: not TOML: {error}") from error


def _certificates(directory: Path) -> PlaceOptions:
    """Docker's way: `*.crt` are authorities, `*.cert` are client certificates with their `*.key`."""
    files = sorted(each for each in directory.iterdir() if each.is_file())
    pairs: list[str | list[str]] = []
    for each in files:
        if each.suffix == ".cert":
            key = each.with_suffix(".key")
            pairs.append([str(each), str(key) if key in files else ""])
    return PlaceOptions(ca=[str(each) for each in files if each.suffix == ".crt"], client=pairs)
