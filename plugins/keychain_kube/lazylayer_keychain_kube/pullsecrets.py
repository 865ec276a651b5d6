"""Keep the pull secrets, and find the one with a login for a host.

The lock guards the tables; nothing else is done while it is held.
"""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from loguru import logger

from lazylayer.api.credentials import Credentials
from lazylayer.errors import FormatError
from lazylayer_logins.dockerconfig import DockerAuths, decode_legacy_config

if TYPE_CHECKING:
    from lazylayer_keychain_kube.api import Secret, SecretType

__all__ = ["TYPES", "PullSecrets", "SecretType"]

TYPES: Mapping[SecretType, str] = {
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
    "kubernetes.io/dockercfg": ".dockercfg",
}
"""The types of secrets with logins, and under which key each has them."""


class PullSecrets:
    """All pull secrets by name. A broken one is logged, once for each of its versions, and left out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: dict[tuple[SecretType, str], DockerAuths] = {}
        self._reported: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._tables)

    def replace(self, kind: SecretType, namespace: str, secrets: list[Secret]) -> None:
        """Replace all secrets of one type in one namespace (empty for all) by `secrets`."""
        known = {(kind, each.name): self._decode(kind, each) for each in secrets}
        with self._lock:
            kept = {
                key: table
                for key, table in self._tables.items()
                if key[0] != kind or (namespace and not key[1].startswith(f"{namespace}/"))
            }
            self._tables = kept | {key: table for key, table in known.items() if table is not None}

    def put(self, kind: SecretType, secret: Secret) -> None:
        """Add a secret, or replace its older version."""
        table = self._decode(kind, secret)
        with self._lock:
            if table is None:
                self._tables.pop((kind, secret.name), None)
            else:
                self._tables[kind, secret.name] = table

    def remove(self, kind: SecretType, secret: Secret) -> None:
        """Forget a secret."""
        self._reported.pop(secret.name, None)
        with self._lock:
            self._tables.pop((kind, secret.name), None)

    def find(self, host: str, repository: str) -> Credentials | None:
        """Return the login for a repository of `host`: that of the most specific key, then of the first name."""
        with self._lock:
            tables = sorted(self._tables.items(), key=lambda item: item[0][1])
        fitting = [
            (-specificity, name, table)
            for (_, name), table in tables
            if (specificity := table.specificity(host, repository)) is not None
        ]
        for _, name, table in sorted(fitting, key=lambda item: item[:2]):
            found = table.find(host, repository, f"secret {name}")
            if found is not None:
                return found
        return None

    def _decode(self, kind: SecretType, secret: Secret) -> DockerAuths | None:
        try:
            table = _decode_secret(kind, secret)
        except FormatError as error:
            if self._reported.get(secret.name) != secret.metadata.resource_version:
                self._reported[secret.name] = secret.metadata.resource_version
                logger.warning(
                    "pull secret {name} is left out: {error}; create it again with "
                    "`kubectl create secret docker-registry`",
                    name=secret.name,
                    error=str(error),
                )
            return None
        self._reported.pop(secret.name, None)
        return table


def _decode_secret(kind: SecretType, secret: Secret) -> DockerAuths:
    key = TYPES[kind]
    encoded = (secret.data or {}).get(key)
    if encoded is None:
        raise FormatError(f"it has no {key}")
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise FormatError(f"its {key} is not base64") from None
    if kind == "kubernetes.io/dockercfg":
        table = decode_legacy_config(data, patterns=True)
    else:
        table = DockerAuths.decode(data, patterns=True)
    table.check()
    return table
