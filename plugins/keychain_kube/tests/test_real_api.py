"""The watches against a real kube-apiserver with etcd, where one was built."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lazylayer.api.oci import Reference
from lazylayer.errors import LazylayerError
from lazylayer_keychain_kube import KubeKeychain
from lazylayer_keychain_kube.pacing import Pacing
from lazylayer_testing.configuring import configured
from lazylayer_testing.servers.process import wait_until

from .kube_apiserver import READER_TOKEN, KubeApiServer, why_not

pytestmark = [pytest.mark.servers, pytest.mark.skipif(bool(why_not()), reason=why_not())]

SECRETS = "/api/v1/namespaces/team/secrets"
ROLES = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApiServer]:
    with KubeApiServer(tmp_path_factory.mktemp("kube") / "servers") as api:
        api.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})
        yield api


class Node:
    def __init__(self, api: KubeApiServer, directory: Path, user: dict[str, Any], pacing: Pacing | None = None) -> None:
        kubeconfig = directory / "kubeconfig"
        cluster = {"server": api.url, "certificate-authority": str(api.authority.certificate)}
        content = {
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        kubeconfig.write_text(yaml.safe_dump(content))
        self.keychain = KubeKeychain(pacing)
        self.options = {"kubeconfig": str(kubeconfig), "namespaces": ["team"], "timeout": 60.0}
        self.configure()

    def configure(self, **options: Any) -> None:
        configured(self.keychain, "keychain_kube", {**self.options, **options})

    def user(self, host: str) -> str:
        found = self.keychain.lazylayer_get_credentials(host, Reference(repository="app", host=host, tag="1"))
        return found.username if found is not None else ""

    def wait_for(self, host: str, user: str) -> None:
        wait_until(lambda: self.user(host) == user, f"{host} belongs to {user!r}", 60)


@pytest.fixture
def node(request: pytest.FixtureRequest, api: KubeApiServer, tmp_path: Path) -> Iterator[Node]:
    certificate, key = api.authority.issue("node", groups="system:masters")
    pacing = getattr(request, "param", None)
    node = Node(api, tmp_path, {"client-certificate": str(certificate), "client-key": str(key)}, pacing)
    yield node
    node.keychain.lazylayer_close()
    api.admin.delete(SECRETS)


def secret(name: str, logins: dict[str, str], *, legacy: bool = False) -> dict[str, Any]:
    auths = {host: {"username": user, "password": "hunter2"} for host, user in logins.items()}
    data = json.dumps(auths if legacy else {"auths": auths}).encode()
    return {
        "metadata": {"name": name},
        "type": "kubernetes.io/dockercfg" if legacy else "kubernetes.io/dockerconfigjson",
        "data": {".dockercfg" if legacy else ".dockerconfigjson": base64.b64encode(data).decode()},
    }


def test_changes_arrive(api: KubeApiServer, node: Node) -> None:
    api.ask("POST", SECRETS, secret("first", {"a.example.com": "first"}))
    api.ask("POST", SECRETS, secret("legacy", {"b.example.com": "legacy"}, legacy=True))
    assert [node.user("a.example.com"), node.user("b.example.com"), node.user("c.example.com")] == [
        "first",
        "legacy",
        "",
    ]
    api.ask("PUT", f"{SECRETS}/first", secret("first", {"a.example.com": "second"}))
    node.wait_for("a.example.com", "second")
    api.ask("DELETE", f"{SECRETS}/first")
    node.wait_for("a.example.com", "")


def test_goes_on_after_a_restart_and_a_compaction(api: KubeApiServer, node: Node) -> None:
    api.ask("POST", SECRETS, secret("pull", {"a.example.com": "before"}))
    assert node.user("a.example.com") == "before"
    api.ask("PUT", f"{SECRETS}/pull", secret("pull", {"a.example.com": "between"}))
    api.compact()
    api.restart()
    assert node.user("a.example.com") in ("before", "between")
    api.ask("PUT", f"{SECRETS}/pull", secret("pull", {"a.example.com": "after"}))
    node.wait_for("a.example.com", "after")


@pytest.mark.parametrize("node", [Pacing(page_items=3)], indirect=True)
def test_pages(api: KubeApiServer, node: Node) -> None:
    for number in range(10):
        api.ask("POST", SECRETS, secret(f"pull-{number}", {f"host-{number}.example.com": f"user-{number}"}))
    assert [node.user(f"host-{number}.example.com") for number in range(10)] == [f"user-{n}" for n in range(10)]


def test_rights_are_needed_and_come_later(api: KubeApiServer, tmp_path: Path) -> None:
    node = Node(api, tmp_path, {"token": READER_TOKEN})
    node.configure(timeout=1.0)
    try:
        with pytest.raises(LazylayerError, match=r'403 .*User "reader" cannot list.*allow this user to list and watch'):
            node.user("a.example.com")
        rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]}]
        api.ask("POST", f"{ROLES}/namespaces/team/roles", {"metadata": {"name": "pull"}, "rules": rules})
        binding = {
            "metadata": {"name": "pull"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pull"},
            "subjects": [{"kind": "User", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"}],
        }
        api.ask("POST", f"{ROLES}/namespaces/team/rolebindings", binding)
        api.ask("POST", SECRETS, secret("pull", {"a.example.com": "ann"}))
        node.configure()
        node.wait_for("a.example.com", "ann")
    finally:
        node.keychain.lazylayer_close()
