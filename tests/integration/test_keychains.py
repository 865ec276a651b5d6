"""The real keychains in one program: whom it asks first, and that an error ends the search."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugins.keychain_kube.tests.kube_api import KubeApi

from lazylayer.api.oci import parse_reference
from lazylayer.errors import LazylayerError
from lazylayer.program import Program
from lazylayer_keychain_cri.remembered import Remembered, RememberedCredentials

REFERENCES = {name: parse_reference(f"{name}.example.com/team/app:1") for name in ("all", "two", "kube", "none")}


class Machine:
    def __init__(self, directory: Path, api: KubeApi) -> None:
        self.directory = directory
        self.api = api
        self.config = directory / "config.json"
        auth = base64.b64encode(b"docker:x").decode()
        self.config.write_text(
            json.dumps({"auths": {f"{name}.example.com": {"auth": auth} for name in ("all", "two")}})
        )
        for name in ("all", "two", "kube"):
            api.put_login(name, {f"{name}.example.com": ("kube", "x")})
        store = RememberedCredentials(directory / "root" / "keychain_cri")
        store.put(Remembered(str(REFERENCES["all"]), "cri", "x"))
        cluster = {"name": "c", "cluster": {"server": api.url}}
        context = {"name": "x", "context": {"cluster": "c"}}
        kubeconfig = {"clusters": [cluster], "contexts": [context], "current-context": "x"}
        (directory / "kubeconfig").write_text(json.dumps(kubeconfig))

    def program(self, *overrides: str) -> Program:
        return Program.load(
            overrides=[
                f"root={self.directory / 'root'}",
                f"run={self.directory / 'run'}",
                f"plugin.keychain_docker.config={self.config}",
                f"plugin.keychain_kube.kubeconfig={self.directory / 'kubeconfig'}",
                f"plugin.keychain_cri.listen={self.directory / 'cri.sock'}",
                *overrides,
            ]
        )


def ask(program: Program) -> dict[str, str]:
    """Who answered, by image."""
    found = {name: program.hooks.get_credentials(each.host, each) for name, each in REFERENCES.items()}
    return {name: each.username for name, each in found.items() if each is not None}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with KubeApi() as api:
        yield Machine(tmp_path, api)


@pytest.mark.seed(2)
def test_first_answer_wins(machine: Machine) -> None:
    with machine.program() as program:
        assert ask(program) == {"all": "cri", "two": "docker", "kube": "kube"}


@pytest.mark.seed(2)
def test_configuration_orders_them(machine: Machine) -> None:
    with machine.program('plugins.enabled=["keychain_kube", "keychain_docker", "*"]') as program:
        assert ask(program) == {"all": "kube", "two": "kube", "kube": "kube"}
    with machine.program('plugins.disabled=["keychain_cri", "keychain_kube"]') as program:
        assert ask(program) == {"all": "docker", "two": "docker"}


def test_error_ends_the_search(machine: Machine) -> None:
    machine.config.write_text("{")
    with machine.program() as program:
        reference = REFERENCES["kube"]
        with pytest.raises(LazylayerError, match=r"plugin keychain_docker .*config\.json"):
            program.hooks.get_credentials(reference.host, reference)


def test_keychains_that_are_not_set_up_are_left_out(tmp_path: Path) -> None:
    with Program.load(overrides=[f"root={tmp_path}", f"run={tmp_path}"]) as program:
        status = {each.name: (each.status, each.reason) for each in program.plugins.records}
    assert status["keychain_kube"][0] == status["keychain_cri"][0] == "skipped"
    assert "set kubeconfig or in_cluster" in status["keychain_kube"][1]
    assert "set listen" in status["keychain_cri"][1]


def test_close_ends_the_watches(machine: Machine) -> None:
    with machine.program() as program:
        ask(program)
        assert [each for each in threading.enumerate() if each.name.startswith("keychain_kube")]
    assert not [each for each in threading.enumerate() if each.name.startswith("keychain_kube")]
