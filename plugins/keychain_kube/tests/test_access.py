"""How the API is reached: certificates, tokens that rotate, exec plugins, the service account of a pod."""

from __future__ import annotations

import base64
import json
import shlex
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lazylayer_keychain_kube.access import Access, AccessSource, ServiceAccount
from lazylayer_keychain_kube.api import Connection, Query
from lazylayer_keychain_kube.errors import AccessError, ApiError
from lazylayer_keychain_kube.kubeconfig import Kubeconfig
from lazylayer_testing.servers.certificates import Authority

from .kube_api import KubeApi

QUERY = Query("kubernetes.io/dockerconfigjson")
VERSION = "client.authentication.k8s.io/v1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    return authority.server_context()


@pytest.fixture
def api(context: ssl.SSLContext) -> Iterator[KubeApi]:
    with KubeApi(context) as api:
        yield api


class Home:
    """A kubeconfig for the API."""

    def __init__(self, directory: Path, api: KubeApi, authority: Authority) -> None:
        self.directory = directory
        self.path = directory / "kubeconfig"
        self.cluster: dict[str, Any] = {"server": api.url, "certificate-authority": str(authority.certificate)}
        self.user: dict[str, Any] = {}
        self.source = Kubeconfig(self.path, exec_timeout=20)

    def write(self) -> None:
        self.path.write_text(
            yaml.safe_dump(
                {
                    "clusters": [{"name": "c", "cluster": self.cluster}],
                    "users": [{"name": "u", "user": self.user}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )

    def list(self) -> None:
        self.write()
        list_secrets(self.source)

    def add_exec(self, script: str, **options: Any) -> None:
        program = self.directory / "plugin.sh"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        self.user = {"exec": {"apiVersion": VERSION, "command": "./plugin.sh", **options}}

    def answer(self, **status: str) -> str:
        answer = {"apiVersion": VERSION, "kind": "ExecCredential", "status": status}
        return f"printf '%s\\n' {shlex.quote(json.dumps(answer))}"


def list_secrets(source: AccessSource) -> None:
    with Connection(source.read(), 250) as connection:
        connection.list(QUERY)


@pytest.fixture
def home(tmp_path: Path, api: KubeApi, authority: Authority) -> Home:
    return Home(tmp_path, api, authority)


class TestCluster:
    def test_authority_in_a_file(self, home: Home) -> None:
        home.list()

    def test_relative_path(self, home: Home, authority: Authority) -> None:
        (home.directory / "ca.crt").write_bytes(authority.certificate.read_bytes())
        home.cluster["certificate-authority"] = "ca.crt"
        home.list()

    def test_authority_inline(self, home: Home, authority: Authority) -> None:
        del home.cluster["certificate-authority"]
        home.cluster["certificate-authority-data"] = base64.b64encode(authority.certificate.read_bytes()).decode()
        home.list()

    def test_unknown_authority_is_refused(self, home: Home) -> None:
        del home.cluster["certificate-authority"]
        with pytest.raises(ApiError, match="certificate verify failed"):
            home.list()

    def test_verification_can_be_switched_off(self, home: Home) -> None:
        del home.cluster["certificate-authority"]
        home.cluster["insecure-skip-tls-verify"] = True
        home.list()

    def test_name_of_the_server(self, home: Home, authority: Authority) -> None:
        with KubeApi(authority.server_context("kubernetes", addresses="DNS:kubernetes.default")) as api:
            home.cluster["server"] = api.url
            with pytest.raises(ApiError, match="certificate verify failed"):
                home.list()
            home.cluster["tls-server-name"] = "kubernetes.default"
            home.list()

    def test_chosen_context(self, home: Home) -> None:
        home.write()
        content = yaml.safe_load(home.path.read_text())
        content["current-context"] = "gone"
        home.path.write_text(yaml.safe_dump(content))
        with pytest.raises(AccessError, match=r"kubeconfig: it has no context 'gone'; it has x"):
            home.source.read()
        list_secrets(Kubeconfig(home.path, "x"))


class TestUser:
    def test_client_certificate_in_files(self, home: Home, api: KubeApi, authority: Authority) -> None:
        certificate, key = authority.issue("node-1")
        api.certificates = {"node-1"}
        with pytest.raises(ApiError, match="401"):
            home.list()
        home.user = {"client-certificate": str(certificate), "client-key": str(key)}
        home.list()

    def test_client_certificate_inline(self, home: Home, api: KubeApi, authority: Authority) -> None:
        certificate, key = authority.issue("node-2")
        api.certificates = {"node-2"}
        home.user = {
            "client-certificate-data": base64.b64encode(certificate.read_bytes()).decode(),
            "client-key-data": base64.b64encode(key.read_bytes()).decode(),
        }
        home.list()

    def test_token(self, home: Home, api: KubeApi) -> None:
        api.tokens = {"good"}
        home.user = {"token": "good"}
        home.list()
        home.user = {"token": "bad"}
        with pytest.raises(ApiError, match="401") as refusal:
            home.list()
        assert "bad" not in str(refusal.value)

    def test_name_and_password(self, home: Home, api: KubeApi) -> None:
        home.user = {"username": "ann", "password": "hunter2"}
        home.list()
        assert api.requests[-1].authorization == "Basic " + base64.b64encode(b"ann:hunter2").decode()

    def test_token_file_that_rotates_counts_within_a_connection(self, home: Home, api: KubeApi) -> None:
        token = home.directory / "token"
        token.write_text("first\n")
        home.user = {"tokenFile": "token", "token": "unused"}
        home.write()
        with Connection(home.source.read(), 250) as connection:
            for name in ("first", "second"):
                token.write_text(f"{name}\n")
                api.tokens = {name}
                connection.list(QUERY)

    @pytest.mark.parametrize("content", [b"", b"two\nlines", b"\xff\xfe"])
    def test_token_file_without_a_token(self, home: Home, content: bytes) -> None:
        (home.directory / "token").write_bytes(content)
        home.user = {"tokenFile": "token"}
        with pytest.raises(AccessError, match="token holds no token"):
            home.list()

    def test_kubeconfig_that_changes_counts(self, home: Home, api: KubeApi) -> None:
        for name in ("first", "second"):
            api.tokens = {name}
            home.user = {"token": name}
            home.list()


class TestExec:
    def test_token_is_handed_out_and_kept(self, home: Home, api: KubeApi) -> None:
        api.tokens = {"good"}
        home.add_exec(f"echo x >>{home.directory}/runs\n{home.answer(token='good')}")
        for _ in range(3):
            home.list()
        assert (home.directory / "runs").read_text() == "x\n"

    def test_answer_that_expires_is_renewed(self, home: Home, api: KubeApi) -> None:
        api.tokens = {"good"}
        answer = home.answer(token="good", expirationTimestamp="2020-01-01T00:00:00Z")
        home.add_exec(f"echo x >>{home.directory}/runs\n{answer}")
        home.list()
        assert (home.directory / "runs").read_text().count("x") >= 2

    def test_answer_that_is_refused_is_renewed(self, home: Home, api: KubeApi) -> None:
        home.add_exec(f"echo x >>{home.directory}/runs\n{home.answer(token='good')}")
        home.list()
        api.tokens = {"better"}
        with pytest.raises(ApiError, match="401"):
            home.list()
        api.tokens = {"good"}
        home.list()
        assert (home.directory / "runs").read_text() == "x\nx\n"

    def test_certificate(self, home: Home, api: KubeApi, authority: Authority) -> None:
        certificate, key = authority.issue("exec-user")
        api.certificates = {"exec-user"}
        home.add_exec(home.answer(clientCertificateData=certificate.read_text(), clientKeyData=key.read_text()))
        home.list()

    def test_is_told_what_is_wanted(self, home: Home) -> None:
        home.add_exec(
            f'printf "%s" "$KUBERNETES_EXEC_INFO" >info; echo "$1 $REGION" >arguments; {home.answer(token="x")}',
            args=["get-token"],
            env=[{"name": "REGION", "value": "north"}],
            provideClusterInfo=True,
        )
        script = (home.directory / "plugin.sh").read_text()
        (home.directory / "plugin.sh").write_text(script.replace("#!/bin/sh", f"#!/bin/sh\ncd {home.directory}"))
        home.list()
        info = json.loads((home.directory / "info").read_text())
        assert info["spec"]["interactive"] is False
        assert info["spec"]["cluster"]["server"] == home.cluster["server"]
        assert (home.directory / "arguments").read_text() == "get-token north\n"

    @pytest.mark.parametrize(
        ("script", "options", "said"),
        [
            ("echo denied >&2; exit 2", {}, r"plugin\.sh failed with exit code 2: denied"),
            ("echo hello", {}, "printed no ExecCredential"),
            ("printf '{\"x\":'; printf '[%.0s' $(seq 20000)", {}, "printed no ExecCredential"),
            ('echo \'{"apiVersion":"v9","kind":"ExecCredential"}\'', {}, "answered with ExecCredential of v9"),
            (
                f'echo \'{{"apiVersion":"{VERSION}","kind":"ExecCredential","status":{{}}}}\'',
                {},
                "neither a token nor a certificate",
            ),
            ("", {"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "supported: .*v1beta1"),
            ("", {"interactiveMode": "Always"}, "needs a terminal"),
            ("", {"command": "no-such-plugin", "installHint": "see the wiki"}, "not on PATH; install it; see the wiki"),
            ("", {"command": "./missing"}, "cannot be started: No such file"),
        ],
    )
    def test_trouble_is_told(self, home: Home, script: str, options: dict[str, str], said: str) -> None:
        home.add_exec(script, **options)
        with pytest.raises(AccessError, match=rf"kubeconfig: .*{said}"):
            home.list()


class TestServiceAccount:
    @pytest.fixture
    def account(self, tmp_path: Path, api: KubeApi, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
        (tmp_path / "ca.crt").write_bytes(authority.certificate.read_bytes())
        (tmp_path / "token").write_text("first")
        return tmp_path

    def test_token_that_rotates(self, account: Path, api: KubeApi) -> None:
        with Connection(ServiceAccount(account).read(), 250) as connection:
            for name in ("first", "second"):
                (account / "token").write_text(name)
                api.tokens = {name}
                connection.list(QUERY)

    def test_ipv6(self, account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
        assert ServiceAccount(account).read().server.startswith("https://[fd00::1]:")

    def test_outside_of_a_pod(self, account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
        with pytest.raises(AccessError, match="run in a pod, or name a kubeconfig"):
            ServiceAccount(account).read()

    def test_without_its_files(self, account: Path) -> None:
        (account / "token").unlink()
        with pytest.raises(AccessError, match=r"cannot read .*token"):
            ServiceAccount(account).read()


class TestBrokenKubeconfig:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "users: [{name: u, user: {token: [hunter2]}}]",
            "users: hunter2: x: y",
            "a: &a [*a]",
            "!!python/object:hunter2 x",
            "\0",
            "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: ftp://x}}]",
        ],
    )
    def test_says_so_and_quotes_nothing(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "kubeconfig"
        path.write_text(text)
        with pytest.raises(AccessError, match="kubeconfig: ") as broken:
            Kubeconfig(path).read()
        assert "hunter2" not in str(broken.value)

    @pytest.mark.parametrize("user", [{"client-certificate-data": "?"}, {"client-certificate-data": "aGVsbG8="}])
    def test_certificate_that_is_none(self, home: Home, user: dict[str, str]) -> None:
        home.user = user
        with pytest.raises(AccessError, match=r"kubeconfig: a certificate or key in it"):
            home.list()

    def test_access_hides_its_secrets(self, home: Home) -> None:
        home.user = {"token": "hunter2"}
        home.write()
        access: Access = home.source.read()
        assert "hunter2" not in repr(access)
