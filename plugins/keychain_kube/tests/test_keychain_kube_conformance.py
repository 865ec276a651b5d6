from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lazylayer.api.credentials import Credentials
from lazylayer_keychain_kube import KubeKeychain
from lazylayer_testing.configuring import configured
from lazylayer_testing.keychain import KeychainConformance, KeychainStore
from lazylayer_testing.servers.process import wait_until

from .kube_api import LEGACY_CONFIG, KubeApi


class Cluster:
    def __init__(self, api: KubeApi, directory: Path, kind: str) -> None:
        self.api = api
        self.kind = kind
        kubeconfig = directory / "kubeconfig"
        kubeconfig.write_text(
            '{"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "c"}}],'
            f'"clusters": [{{"name": "c", "cluster": {{"server": "{api.url}"}}}}]}}'
        )
        self.plugin = configured(KubeKeychain(), "keychain_kube", {"kubeconfig": str(kubeconfig)})

    def put(self, logins: Mapping[str, Credentials]) -> None:
        self.api.delete_all()
        for number, (host, login) in enumerate(logins.items()):
            self.api.put_login(f"pull-{number}", {host: (login.username, login.password)}, kind=self.kind)
        wait_until(self._everybody_knows, "the watches know")

    def damage(self) -> bool:
        # What was last known is used on: see the tests of the watches.
        return False

    def _everybody_knows(self) -> bool:
        version = str(self.api.send_bookmarks())
        return all(each.version == version for each in self.plugin.watchers)


@pytest.fixture(params=["kubernetes.io/dockerconfigjson", LEGACY_CONFIG])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    with KubeApi() as api:
        yield Cluster(api, tmp_path, request.param)


class TestKubeKeychain(KeychainConformance):
    @pytest.fixture
    def store(self, cluster: Cluster) -> KeychainStore:
        return cluster
