"""A real kube-apiserver with a real etcd. `scripts/kube-apiserver` builds the one, Debian has the other."""

from __future__ import annotations

import os
import re
import shutil
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from lazylayer_testing.servers.certificates import Authority
from lazylayer_testing.servers.process import ServerProcess, accepts_connections, free_port, run

ADMIN_TOKEN = "admin-token"
READER_TOKEN = "reader-token"
_BUILD = Path(__file__).with_name("kube_apiserver_build") / "go.mod"


def find_program() -> Path | None:
    """Return the program that `scripts/kube-apiserver` built, or None."""
    version = re.search(r"^\tk8s\.io/kubernetes (v[0-9.]+)$", _BUILD.read_text(), re.MULTILINE)
    assert version is not None
    cache = Path(os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache")
    program = cache / "lazylayer" / f"kube-apiserver-{version[1]}"
    return program if program.exists() else None


def why_not() -> str:
    """Return why no server can run here; empty if one can."""
    if find_program() is None:
        return "there is no kube-apiserver: run scripts/kube-apiserver"
    return "" if shutil.which("etcd") else "there is no etcd: install etcd-server"


class KubeApiServer:
    """Both servers, on ports of 127.0.0.1; a context manager. `admin` may do everything."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.authority = Authority(directory / "authority")
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        etcd_port, peer_port = free_port(), free_port()
        etcd_url, peer_url = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
        self.etcd_url = etcd_url
        self._etcd = ServerProcess(
            [
                *("etcd", "--data-dir", directory / "etcd"),
                *(f"--listen-client-urls={etcd_url}", f"--advertise-client-urls={etcd_url}"),
                *(f"--listen-peer-urls={peer_url}", f"--initial-advertise-peer-urls={peer_url}"),
                f"--initial-cluster=default={peer_url}",
            ],
            log=directory / "etcd.log",
            ready=lambda: accepts_connections(etcd_port),
        )
        certificate, key = self.authority.issue("kube-apiserver")
        signing_key = directory / "service-accounts.key"
        run(["openssl", "genrsa", "-out", signing_key, "2048"])
        tokens = directory / "tokens.csv"
        tokens.write_text(f'{ADMIN_TOKEN},admin,1,"system:masters"\n{READER_TOKEN},reader,2,""\n')
        self._server = ServerProcess(
            [
                *(find_program() or "kube-apiserver", f"--etcd-servers={etcd_url}"),
                *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={self.port}"),
                *(f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"),
                *(f"--client-ca-file={self.authority.certificate}", f"--token-auth-file={tokens}"),
                *("--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc"),
                *(f"--service-account-key-file={signing_key}", f"--service-account-signing-key-file={signing_key}"),
                *("--service-cluster-ip-range=10.0.0.0/24", "--endpoint-reconciler-type=none"),
                *("--disable-admission-plugins=ServiceAccount", "--enable-priority-and-fairness=false"),
            ],
            log=directory / "kube-apiserver.log",
            ready=self._is_ready,
            start_seconds=120,
        )
        self.admin = httpx.Client(
            base_url=self.url,
            verify=ssl.create_default_context(cafile=str(self.authority.certificate)),
            headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
            timeout=30,
        )

    def __enter__(self) -> Self:
        self._etcd.start()
        try:
            self._server.start()
        except BaseException:
            self._etcd.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.admin.close()
        self._server.stop()
        self._etcd.stop()

    def restart(self) -> None:
        """Kill the API server and start it again."""
        self._server.kill()
        self._server.start()

    def ask(self, method: str, path: str, content: Any = None) -> Any:
        """Send one request of the administrator. Raises httpx.HTTPStatusError."""
        answer = self.admin.request(method, path, json=content)
        answer.raise_for_status()
        return answer.json()

    def compact(self) -> None:
        """Have etcd forget all older versions, as it does by itself every few minutes."""
        status = run(["etcdctl", f"--endpoints={self.etcd_url}", "endpoint", "status", "--write-out=json"])
        revision = re.search(r'"revision":(\d+)', status)
        assert revision is not None
        run(["etcdctl", f"--endpoints={self.etcd_url}", "compact", revision[1]])

    def _is_ready(self) -> bool:
        try:
            return self.admin.get("/readyz").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False
