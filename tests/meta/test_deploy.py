"""What is in `deploy/` can be read by those it is for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

from lazylayer.api.events import LayerState
from lazylayer.api.oci import Digest
from lazylayer_state_prometheus.families import Sums, layer_families, sum_families
from meta.repository import ROOT

DEPLOY = ROOT / "deploy"
SNIPPETS = sorted((DEPLOY / "containerd").glob("*.toml"))
SOCKET = "/run/lazylayer/snapshotter.sock"


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda path: path.name)
def test_snippets_name_the_socket(snippet: Path) -> None:
    settings = tomllib.loads(snippet.read_text())
    assert settings["proxy_plugins"]["lazylayer"] == {
        "type": "snapshot",
        "address": SOCKET,
        **({"exports": settings["proxy_plugins"]["lazylayer"]["exports"]} if settings["version"] == 3 else {}),
    }


def test_other_snapshotters_can_still_unpack() -> None:
    """Entries replace containerd's own, and the first one gets what is pulled without a name."""
    settings = tomllib.loads((DEPLOY / "containerd/config-2.toml").read_text())
    entries = settings["plugins"]["io.containerd.transfer.v1.local"]["unpack_config"]
    assert [each["snapshotter"] for each in entries] == ["overlayfs", "lazylayer"]
    assert {each["platform"] for each in entries} == {"linux"}


@pytest.mark.servers
def test_containerd_takes_its_snippet() -> None:
    if shutil.which("containerd") is None:
        pytest.skip("needs containerd")
    version = subprocess.run(["containerd", "--version"], check=True, capture_output=True, text=True).stdout.split()[2]
    snippet = DEPLOY / "containerd" / ("config-1.toml" if version.lstrip("v").startswith("1.") else "config-2.toml")
    command: list[str | Path] = ["containerd", "--config", snippet, "config", "dump"]
    dumped = tomllib.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert dumped["proxy_plugins"]["lazylayer"]["address"] == SOCKET
    assert "lazylayer" in str(dumped["plugins"])


def test_units_restart_without_taking_mounts_away() -> None:
    unit = ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "systemd/lazylayer.service")
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["KillMode"] == "process"
    assert int(service["FileDescriptorStoreMax"]) >= 1024
    assert unit["Unit"]["Before"] == "containerd.service"
    # A mount namespace of its own would hide mounts from containerd.
    assert not {"PrivateTmp", "ProtectSystem", "PrivateMounts", "ReadOnlyPaths"} & set(service)


def test_manifests_are_yaml_and_show_mounts_to_the_node() -> None:
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes/lazylayer.yaml").read_text()))
    (daemon_set,) = (each for each in documents if each["kind"] == "DaemonSet")
    (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
    mounts = {each["name"]: each for each in container["volumeMounts"]}
    assert mounts["root"]["mountPropagation"] == "Bidirectional"
    volumes = {each["name"]: each for each in daemon_set["spec"]["template"]["spec"]["volumes"]}
    for name in ("root", "run"):
        assert volumes[name]["hostPath"]["path"] == mounts[name]["mountPath"]
    (configuration,) = (each for each in documents if each["kind"] == "ConfigMap")
    tomllib.loads(configuration["data"]["lazylayer.toml"])


def test_the_configuration_is_good() -> None:
    from lazylayer.cli.config import check_configuration

    assert list(check_configuration(DEPLOY / "lazylayer.toml", [])) == []


RULES = DEPLOY / "prometheus" / "lazylayer.rules.yaml"
BOARD = DEPLOY / "grafana" / "lazylayer.json"
OF_PROMETHEUS = {"up"}


def test_rules_pass_their_tests() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool (Debian: apt install prometheus)")
    command = [promtool, "test", "rules", "lazylayer.test.yaml"]
    done = subprocess.run(command, cwd=RULES.parent, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def exported_names() -> set[str]:
    """Return the names of the series that the plugin exports, as a scrape shows them."""
    readme = (ROOT / "plugins/state_prometheus/README.md").read_text()
    named = set(re.findall(r"^\| `(lazylayer_\w+)` \|", readme, re.MULTILINE))
    state = LayerState(Digest("sha256:1"), 2, 1, "failed", 1, 1, "registry.test")
    families = [*sum_families([state], {"frontend_fuse": 1}, Sums()), *layer_families([state])]
    found = {sample.name for family in families for sample in family.samples}
    assert found <= named, "the README lists every metric"
    return named


def names_in_queries(text: str) -> set[str]:
    without_labels = re.sub(r"\{[^}]*\}|\bby \([^)]*\)", "", text)
    return set(re.findall(r"\b(?:lazylayer[a-z0-9_:]+|up)\b", without_labels))


def test_rules_and_board_use_metrics_that_exist() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    known = exported_names() | recorded | OF_PROMETHEUS
    for rule in rules:
        used = names_in_queries(rule["expr"])
        assert used
        assert used <= known, rule
    panels = json.loads(BOARD.read_text())["panels"]
    for panel in panels:
        for target in panel["targets"]:
            used = names_in_queries(target["expr"])
            assert used
            assert used <= known, panel["title"]
    assert len({panel["id"] for panel in panels}) == len(panels)
