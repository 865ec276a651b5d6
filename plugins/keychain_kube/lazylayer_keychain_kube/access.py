"""Find the way to the Kubernetes API: its address, its authority, and lazylayer's identity.

An `Access` is what one connection is made from. Sources of it are in `kubeconfig` and in
`service_account`; they read their files anew each time, so that files may come later and change.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from lazylayer_keychain_kube.errors import AccessError

__all__ = ["MAX_FILE_SIZE", "Access", "AccessSource", "ServiceAccount", "make_ssl_context", "read_file", "read_token"]

MAX_FILE_SIZE = 4 * 1024 * 1024
"""Bytes. No kubeconfig, certificate or token is larger."""


class Access(msgspec.Struct, frozen=True):
    """All that a connection needs; secrets stay out of `repr`.

    `authorization` returns the value of the header of that name, or an empty string; it is called
    for each request, so that tokens in files may rotate. `refused` is called when the API says 401.
    `server_name` is the name that the certificate must have, where it is not the server's.
    """

    server: str
    tls: ssl.SSLContext
    authorization: Callable[[], str]
    refused: Callable[[], None]
    server_name: str = ""
    proxy: str = ""

    def __repr__(self) -> str:
        return f"Access({self.server})"


class AccessSource(Protocol):
    """A source of an `Access`. May be called from any thread, and raises AccessError."""

    def read(self) -> Access:
        """Return the access as the files describe it now. Raises AccessError."""


class ServiceAccount:
    """The service account that Kubernetes gives to a pod, in a directory of files that rotate."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self) -> Access:
        """Return the access of this pod. Raises AccessError outside a pod."""
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port:
            raise AccessError(
                "in_cluster is set, but KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not; "
                "run in a pod, or name a kubeconfig instead"
            )
        token = self._directory / "token"
        read_token(token)
        return Access(
            server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            tls=make_ssl_context(authority=read_file(self._directory / "ca.crt")),
            authorization=lambda: f"Bearer {read_token(token)}",
            refused=lambda: None,
        )


def read_file(path: Path) -> bytes:
    """Return the bytes of the file. Raises AccessError, which names it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise AccessError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_FILE_SIZE:
        raise AccessError(f"{path} is larger than {MAX_FILE_SIZE} bytes")
    return data


def read_token(path: Path) -> str:
    """Return the token in the file. Raises AccessError."""
    token = read_file(path).decode("ascii", errors="replace").strip()
    if not token or not token.isprintable() or not token.isascii():
        raise AccessError(f"{path} holds no token")
    return token


def make_ssl_context(
    *, authority: bytes = b"", verify: bool = True, certificate: bytes = b"", key: bytes = b""
) -> ssl.SSLContext:
    """Return a TLS context for connections to the API.

    :param authority: PEM; empty for the authorities that the system trusts.
    :param certificate: the client's, PEM, with its `key`; both empty for none.
    Raises AccessError.
    """
    try:
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate:
            _load_client_certificate(context, certificate, key)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise AccessError(f"a certificate or key in it cannot be used: {error}") from None
    return context


def _load_client_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # OpenSSL wants a file: one in memory keeps the key off the disk.
    descriptor = os.memfd_create("client-certificate")
    try:
        for part in (certificate, b"\n", key):
            view = memoryview(part)
            while view:
                view = view[os.write(descriptor, view) :]
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
    finally:
        os.close(descriptor)


def _no_password() -> bytes:
    raise ValueError("the key is encrypted; store it without a password")
