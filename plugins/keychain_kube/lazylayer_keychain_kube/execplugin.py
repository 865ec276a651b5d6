"""Exec plugins: programs that hand out credentials for the Kubernetes API.

Source: `client.authentication.k8s.io/v1` (and v1beta1), as described in Kubernetes' "client-go
credential plugins". The program is told what we want in `KUBERNETES_EXEC_INFO` and prints an
`ExecCredential`. Its answer is kept until it expires, or until the API refuses it.

The lock of a plugin guards its kept answer and is held while the program runs, so that all watches
share one run.
"""

from __future__ import annotations

import os
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec

from lazylayer.api.decoding import decode_json
from lazylayer.errors import FormatError
from lazylayer_keychain_kube.errors import AccessError
from lazylayer_logins.helperprograms import HelperError, run_helper

__all__ = ["ExecCredential", "ExecOptions", "ExecPlugin"]

_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_EARLY = timedelta(seconds=10)
"""An answer is renewed this long before it expires."""


class _Variable(msgspec.Struct, frozen=True):
    name: str
    value: str


class ExecOptions(msgspec.Struct, frozen=True, rename="camel"):
    """`exec` of a user in a kubeconfig."""

    command: str
    api_version: str
    args: list[str] | None = None
    env: list[_Variable] | None = None
    install_hint: str = ""
    interactive_mode: str = "IfAvailable"
    provide_cluster_info: bool = False

    def __repr__(self) -> str:
        return f"ExecOptions({self.command})"


class ExecCredential(msgspec.Struct, frozen=True):
    """The program's answer: a token, or a client certificate with its key (PEM), or both."""

    token: str = ""
    certificate: str = msgspec.field(name="clientCertificateData", default="")
    key: str = msgspec.field(name="clientKeyData", default="")
    expires: Annotated[datetime, msgspec.Meta(tz=True)] | None = msgspec.field(name="expirationTimestamp", default=None)

    def __repr__(self) -> str:
        return f"ExecCredential(expires={self.expires})"


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    status: ExecCredential | None = None


class ExecPlugin:
    """One program, and its last answer.

    :param directory: where a relative path in the command begins: the kubeconfig's folder.
    :param timeout: seconds that a run may take.
    """

    def __init__(self, options: ExecOptions, directory: Path, timeout: float) -> None:
        self.options = options
        self._directory = directory
        self._timeout = timeout
        self._lock = threading.Lock()
        self._kept: ExecCredential | None = None

    def credential(self, cluster: dict[str, Any]) -> ExecCredential:
        """Return the kept answer, or a new one.

        :param cluster: what the program is told of the cluster, if it wants to be told.
        Raises AccessError.
        """
        with self._lock:
            if self._kept is None or _is_over(self._kept):
                self._kept = self._run(cluster)
            return self._kept

    def forget(self) -> None:
        """Drop the kept answer, which the API refused."""
        with self._lock:
            self._kept = None

    def _run(self, cluster: dict[str, Any]) -> ExecCredential:
        options = self.options
        if options.api_version not in _VERSIONS:
            raise AccessError(f"exec of version {options.api_version!r}: supported: {' and '.join(_VERSIONS)}")
        if options.interactive_mode == "Always":
            raise AccessError(f"{options.command} needs a terminal, which a daemon does not have; use another user")
        spec: dict[str, Any] = {"interactive": False}
        if options.provide_cluster_info:
            spec["cluster"] = {key: value for key, value in cluster.items() if value}
        info = {"apiVersion": options.api_version, "kind": "ExecCredential", "spec": spec}
        environment = {**os.environ, "KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode()}
        environment |= {each.name: each.value for each in options.env or []}
        try:
            done = run_helper([self._program(), *(options.args or [])], environment=environment, timeout=self._timeout)
        except HelperError as error:
            raise AccessError(f"exec plugin: {error}") from error
        if done.code != 0:
            raise AccessError(f"exec plugin {options.command} failed with exit code {done.code}: {done.complaint()}")
        return self._decode(done.output)

    def _program(self) -> str:
        command = self.options.command
        if "/" in command:
            return str(self._directory / command)
        program = shutil.which(command)
        if program is None:
            hint = f"; {self.options.install_hint}" if self.options.install_hint else ""
            raise AccessError(f"exec plugin {command} is not on PATH; install it{hint}")
        return program

    def _decode(self, output: bytes) -> ExecCredential:
        command = self.options.command
        try:
            answer = decode_json(output, _Answer)
        except FormatError:
            raise AccessError(f"exec plugin {command} printed no ExecCredential ({len(output)} bytes)") from None
        status = answer.status
        if answer.kind != "ExecCredential" or answer.api_version != self.options.api_version:
            raise AccessError(
                f"exec plugin {command} answered with {answer.kind} of {answer.api_version}; "
                f"expected {self.options.api_version}"
            )
        if status is None or not (status.token or status.certificate):
            raise AccessError(f"exec plugin {command} handed out neither a token nor a certificate")
        if bool(status.certificate) != bool(status.key):
            raise AccessError(f"exec plugin {command} handed out a certificate without its key, or the reverse")
        return status


def _is_over(credential: ExecCredential) -> bool:
    return credential.expires is not None and datetime.now(UTC) + _EARLY >= credential.expires
