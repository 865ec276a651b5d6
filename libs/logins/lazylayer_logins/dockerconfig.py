"""Read logins as Docker writes them: the table `auths` of a config.json, and the entry for a host.

Docker's config.json, Kubernetes' image pull secrets and the CRI all carry this table or one entry of
it, so that keychain plugins share this module. Sources: the Docker CLI's `config/configfile` and
`config/credentials` (how entries are decoded, and that keys which are URLs mean their host), the
kubelet's `pkg/credentialprovider` (paths and patterns in keys, longest first), and
containers-auth.json(5) (keys with a path).

Entries are decoded when they are asked for, so that a broken one is an error for its own host only.
Everything here is immutable data and pure functions, safe to use from any thread.
"""

from __future__ import annotations

import base64
import fnmatch
import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from lazylayer.api.credentials import Credentials
from lazylayer.api.decoding import decode_json
from lazylayer.api.oci import DEFAULT_REGISTRY
from lazylayer.errors import FormatError

__all__ = [
    "DOCKER_HUB_KEY",
    "MAX_CONFIG_SIZE",
    "AuthEntry",
    "DockerAuths",
    "canonical_host",
    "decode_legacy_config",
    "host_of_key",
]

MAX_CONFIG_SIZE = 4 * 1024 * 1024
"""Bytes. Larger files and secrets are refused."""

DOCKER_HUB_KEY = "https://index.docker.io/v1/"
"""Docker Hub's name in config.json and for credential helpers."""

_Shape = TypeVar("_Shape")

_DOCKER_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
_URL = re.compile(r"https?://", re.IGNORECASE)
_API_VERSION = re.compile(r"v[12](?:/|$)")


class AuthEntry(msgspec.Struct, frozen=True):
    """One entry of `auths`, as Docker and Kubernetes write it; secrets stay out of `repr`.

    `auth` is base64 of `username:password` and wins over the two fields.
    """

    username: str = ""
    password: str = ""
    auth: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    def __repr__(self) -> str:
        return "AuthEntry(…)"

    def credentials(self, source: str) -> Credentials | None:
        """Return the credentials of the entry, or None if it is empty, as a placeholder is. Raises FormatError.

        :param source: where it was found, for messages. Raises FormatError for an `auth` that is
            not base64 of a name and a password.
        """
        username, password = self._name_and_password()
        found = Credentials(
            username=username,
            password=password,
            identity_token=self.identitytoken,
            registry_token=self.registrytoken,
            source=source,
        )
        return found if password or self.identitytoken or self.registrytoken else None

    def _name_and_password(self) -> tuple[str, str]:
        if not self.auth:
            return self.username, self.password
        try:
            decoded = base64.b64decode("".join(self.auth.split()), validate=True).decode()
        except ValueError:
            raise FormatError("its auth is not base64 of name:password") from None
        username, colon, password = decoded.partition(":")
        if not colon or not username:
            raise FormatError("its auth is base64, but not of name:password")
        return username, password.strip("\0")


class _Config(msgspec.Struct, frozen=True):
    auths: dict[str, msgspec.Raw] | None = None


class _Key(msgspec.Struct, frozen=True):
    """A key of `auths`: the host and repositories that it is for."""

    text: str
    host: str
    path: str
    is_url: bool

    def fits(self, host: str, repository: str, patterns: bool) -> bool:
        if self.path and not f"{repository}/".startswith(f"{self.path}/"):
            return False
        return self.host == host or (patterns and _matches_pattern(self.host, host))

    def rank(self, host: str) -> tuple[int, bool, bool, str]:
        """Sort key. Smaller is more specific: the longest path, then the host itself, then Docker's plain form."""
        return -len(self.path), self.host != host, self.is_url, self.text


class DockerAuths:
    """The table `auths`.

    :param entries: the entries by key, each still JSON.
    :param patterns: whether `*`, `?` and `[…]` in a key's host stand for other names, as the
        kubelet reads pull secrets; Docker has no such thing.
    """

    def __init__(self, entries: Mapping[str, msgspec.Raw], *, patterns: bool = False) -> None:
        self._entries = dict(entries)
        self._patterns = patterns
        # The kubelet reads a path in a URL as a repository; to Docker a URL means its host.
        self._keys = [_parse_key(text, url_has_path=patterns) for text in entries]

    def __len__(self) -> int:
        return len(self._entries)

    @classmethod
    def decode(cls, data: bytes, *, patterns: bool = False) -> DockerAuths:
        """Read the table in a config.json. Raises FormatError, which quotes nothing of it."""
        return cls(_decode(data, _Config).auths or {}, patterns=patterns)

    def check(self) -> None:
        """Decode every entry. Raises FormatError for the first that cannot be decoded."""
        for text in self._entries:
            self._credentials(text, f"entry {text!r} of auths")

    def specificity(self, host: str, repository: str) -> int | None:
        """Return how well the best key matches, to choose among tables: more is better, None is no match."""
        host = canonical_host(host)
        fitting = [key for key in self._keys if key.fits(host, repository, self._patterns)]
        return max((2 * len(key.path) + (key.host == host) for key in fitting), default=None)

    def find(self, host: str, repository: str, source: str) -> Credentials | None:
        """Return the credentials for a repository of `host`, or None. Raises FormatError.

        The most specific key that has any wins.

        :param host: as in references, `name[:port]`.
        :param source: where the table was found, for messages: a file, say.
        Raises FormatError, which names source and key, for an entry that cannot be read.
        """
        host = canonical_host(host)
        fitting = [key for key in self._keys if key.fits(host, repository, self._patterns)]
        for key in sorted(fitting, key=lambda each: each.rank(host)):
            where = f"{source}, entry {key.text!r} of auths"
            found = self._credentials(key.text, where)
            if found is not None:
                return found
        return None

    def _credentials(self, key: str, where: str) -> Credentials | None:
        try:
            return _decode(bytes(self._entries[key]), AuthEntry).credentials(where)
        except FormatError as error:
            raise FormatError(f"{where}: {error}") from None


def decode_legacy_config(data: bytes, *, patterns: bool = False) -> DockerAuths:
    """Read the table in a `.dockercfg`, which is `auths` without anything around it. Raises FormatError."""
    return DockerAuths(_decode(data, dict[str, msgspec.Raw]), patterns=patterns)


def canonical_host(host: str) -> str:
    """Return `host` in lower case, with `docker.io` for every name of Docker Hub."""
    host = host.lower()
    return DEFAULT_REGISTRY if host in _DOCKER_HUB_HOSTS else host


def host_of_key(key: str) -> str:
    """Return the canonical host of a key of `auths` or `credHelpers`, or of a server address."""
    return canonical_host(_URL.sub("", key).partition("/")[0])


def _parse_key(text: str, *, url_has_path: bool) -> _Key:
    is_url = _URL.match(text) is not None
    path = _URL.sub("", text).partition("/")[2]
    path = "" if is_url and not url_has_path else _API_VERSION.sub("", path, count=1).strip("/")
    return _Key(text, host_of_key(text), path, is_url)


def _matches_pattern(pattern: str, host: str) -> bool:
    """Match as kubelet does: part by part between dots, so that `*` never stands for a dot; equal ports."""
    if not any(character in pattern for character in "*?["):
        return False
    pattern_name, _, pattern_port = pattern.partition(":")
    name, _, port = host.partition(":")
    ours, theirs = pattern_name.split("."), name.split(".")
    if port != pattern_port or len(ours) != len(theirs):
        return False
    return all(fnmatch.fnmatchcase(part, each) for part, each in zip(theirs, ours, strict=True))


def _decode(data: bytes, shape: type[_Shape]) -> _Shape:
    if len(data) > MAX_CONFIG_SIZE:
        raise FormatError(f"it is larger than {MAX_CONFIG_SIZE} bytes")
    try:
        return decode_json(data, shape)
    except FormatError as error:
        raise FormatError(f"invalid config.json: {error}") from None
