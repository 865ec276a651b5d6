"""Read a kubeconfig: the cluster, and the user.

Source: the types of `k8s.io/client-go/tools/clientcmd/api/v1`, and how client-go reads them. Inline
data wins over files, a token file over a token; relative paths are below the kubeconfig's folder.
Not supported, since client-go has dropped them too: auth providers.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from lazylayer_keychain_kube.access import Access, make_ssl_context, read_file, read_token
from lazylayer_keychain_kube.errors import AccessError
from lazylayer_keychain_kube.execplugin import ExecCredential, ExecOptions, ExecPlugin

__all__ = ["Kubeconfig"]

_Item = TypeVar("_Item", bound="_Named")


class _Cluster(msgspec.Struct, frozen=True, rename="kebab"):
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""


class _User(msgspec.Struct, frozen=True, rename="kebab"):
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = msgspec.field(name="tokenFile", default="")
    username: str = ""
    password: str = ""
    exec: ExecOptions | None = None
    auth_provider: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return "_User(…)"


class _Context(msgspec.Struct, frozen=True):
    cluster: str = ""
    user: str = ""


class _Named(msgspec.Struct, frozen=True):
    name: str


class _NamedCluster(_Named, frozen=True):
    cluster: _Cluster


class _NamedUser(_Named, frozen=True):
    user: _User


class _NamedContext(_Named, frozen=True):
    context: _Context


class _File(msgspec.Struct, frozen=True):
    clusters: list[_NamedCluster] = []
    users: list[_NamedUser] = []
    contexts: list[_NamedContext] = []
    current_context: str = msgspec.field(name="current-context", default="")


class Kubeconfig:
    """A kubeconfig file, which may come later and change.

    :param context: the name of a context in it; empty for its current one.
    :param exec_timeout: seconds that an exec plugin may take.
    """

    def __init__(self, path: Path, context: str = "", exec_timeout: float = 30.0) -> None:
        self._path = path
        self._context = context
        self._exec_timeout = exec_timeout
        self._plugin: ExecPlugin | None = None

    def read(self) -> Access:
        """Return the access that the file describes now. Raises AccessError, which names the file."""
        try:
            return self._read()
        except AccessError as error:
            if str(self._path) in str(error):
                raise
            raise AccessError(f"{self._path}: {error}") from error

    def _read(self) -> Access:
        file = _parse(read_file(self._path))
        context = _named(file.contexts, self._context or file.current_context, "context").context
        cluster = _named(file.clusters, context.cluster, "cluster").cluster
        user = _named(file.users, context.user, "user").user if context.user else _User()
        if not cluster.server.startswith(("https://", "http://")):
            raise AccessError(f"the server of cluster {context.cluster!r} is not an http(s) URL")
        if user.auth_provider is not None:
            raise AccessError(f"user {context.user!r} has an auth provider, which clients no longer support; use exec")
        credential = self._exec_credential(user, cluster)
        authority = self._data(cluster.certificate_authority_data, cluster.certificate_authority)
        certificate = self._data(user.client_certificate_data, user.client_certificate)
        key = self._data(user.client_key_data, user.client_key)
        if credential is not None and credential.certificate:
            certificate, key = credential.certificate.encode(), credential.key.encode()
        return Access(
            server=cluster.server.rstrip("/"),
            tls=make_ssl_context(
                authority=authority, verify=not cluster.insecure_skip_tls_verify, certificate=certificate, key=key
            ),
            authorization=lambda: self._authorization(user, cluster),
            refused=self._refused,
            server_name=cluster.tls_server_name,
            proxy=cluster.proxy_url,
        )

    def _authorization(self, user: _User, cluster: _Cluster) -> str:
        if user.token_file:
            return f"Bearer {read_token(self._path.parent / user.token_file)}"
        if user.token:
            return f"Bearer {user.token}"
        if user.username:
            return "Basic " + base64.b64encode(f"{user.username}:{user.password}".encode()).decode()
        credential = self._exec_credential(user, cluster)
        return f"Bearer {credential.token}" if credential is not None and credential.token else ""

    def _exec_credential(self, user: _User, cluster: _Cluster) -> ExecCredential | None:
        if user.exec is None:
            return None
        plugin = self._plugin
        if plugin is None or plugin.options != user.exec:
            plugin = self._plugin = ExecPlugin(user.exec, self._path.parent, self._exec_timeout)
        authority = self._data(cluster.certificate_authority_data, cluster.certificate_authority)
        return plugin.credential(
            {
                "server": cluster.server,
                "tls-server-name": cluster.tls_server_name,
                "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
                "certificate-authority-data": base64.b64encode(authority).decode(),
                "proxy-url": cluster.proxy_url,
            }
        )

    def _refused(self) -> None:
        if self._plugin is not None:
            self._plugin.forget()

    def _data(self, inline: str, file: str) -> bytes:
        if inline:
            try:
                return base64.b64decode(inline, validate=True)
            except binascii.Error:
                raise AccessError("a certificate or key in it is not base64") from None
        return read_file(self._path.parent / file) if file else b""


def _parse(data: bytes) -> _File:
    try:
        return msgspec.convert(yaml.safe_load(data), _File)
    except yaml.YAMLError as error:
        # Its text quotes the file, which holds secrets.
        mark = getattr(error, "problem_mark", None)
        raise AccessError(f"it is not YAML{f' (line {mark.line + 1})' if mark else ''}") from None
    except (msgspec.ValidationError, RecursionError) as error:
        raise AccessError(f"invalid kubeconfig: {error}") from None


def _named(items: list[_Item], name: str, kind: str) -> _Item:
    for item in items:
        if item.name == name:
            return item
    there = ", ".join(item.name for item in items) or "none"
    raise AccessError(f"it has no {kind} {name!r}; it has {there}")
