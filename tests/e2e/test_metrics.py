"""The metrics of a real daemon: they agree with what it says elsewhere, and with what registries counted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.containerd_node import ContainerdNode
from images.go_image import GoImages
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import free_port, wait_until

pytestmark = [pytest.mark.fuse, pytest.mark.servers]

READ = "import hashlib; print(hashlib.sha256(open(hashlib.__file__, 'rb').read()).hexdigest())"


def scrape(address: str) -> dict[tuple[str, ...], float]:
    """Samples by name and the values of their labels."""
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def states(node: ContainerdNode) -> dict[str, dict[str, object]]:
    """The layers of `lazylayer status`, by digest."""
    options = [f"--set=run={json.dumps(str(node.daemon.directory / 'run'))}"]
    command = [sys.executable, "-m", "lazylayer", *options, "status", "--json"]
    said = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return {layer["digest"]: layer for mount in said["mounts"] for layer in mount["layers"]}


def sources(told: dict[tuple[str, ...], float]) -> set[str]:
    return {labels[-1] for labels in told if labels[0] == "lazylayer_layer_source_info"}


def settled(address: str, node: ContainerdNode) -> tuple[dict[tuple[str, ...], float], dict[str, dict[str, object]]]:
    """Return the metrics and the states of one moment: nothing was fetched between the two."""
    said = states(node)
    while True:
        told = scrape(address)
        before, said = said, states(node)
        if before == said:
            return told, said


def test_metrics_say_which_mirror_served(
    as_root: None,
    server_directory: Path,
    docker_registry: DockerRegistry,
    go_images: GoImages,
    python_layers: list[Path],
    tmp_path: Path,
) -> None:
    reference = go_images.push_estargz(python_layers)
    repository = reference.removeprefix(f"{docker_registry.host}/")
    address = f"127.0.0.1:{free_port()}"
    with DockerRegistry(tmp_path / "mirror") as mirror:
        copy = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests"]
        subprocess.run([*copy, f"docker://{reference}", f"docker://{mirror.host}/{repository}"], check=True)
        origin = f'host = "{docker_registry.host}", server = "{docker_registry.url}"'
        hosts = f'[{{{origin}, mirrors = [{{url = "{mirror.url}"}}]}}]'
        settings = {
            "resolver.hosts": hosts,
            "plugin.resolver_registry.mirror_attempts": "1",
            "plugin.state_prometheus.address": json.dumps(address),
            "background.enabled": "false",
        }
        directory = server_directory / "m"
        with ContainerdNode(directory, docker_registry, plain_http=(mirror.host,), settings=settings) as node:
            layers = node.pull(reference)["layers"]
            assert {source.partition("/")[0] for source in sources(scrape(address))} == {mirror.host}
            mirror.kill()
            node.run(reference, READ)
            told, said = settled(address, node)
            by = {source.partition("/")[0] for source in sources(told)}
            assert docker_registry.host in by, "the registry itself, after the mirror went down"
            assert told["lazylayer_layers",] == len(layers) == len(said)
            assert told["lazylayer_mounts", node.daemon.frontend()] == len(layers)
            for digest, state in said.items():
                assert told["lazylayer_layer_size_bytes", digest] == state["size"]
                assert told["lazylayer_layer_fetched_bytes", digest] == state["fetched"]
                assert told["lazylayer_layer_requests_total", digest] == state["requests"]
                assert told["lazylayer_layer_network_bytes_total", digest] == state["network_bytes"]
                assert told["lazylayer_layer_source_info", digest, str(state["source"])] == 1
            served = _bytes_of_layers(mirror, list(said)) + _bytes_of_layers(docker_registry, list(said))
            assert 0 < told["lazylayer_network_bytes_total",] <= served
            node.remove_images()
            wait_until(lambda: "lazylayer_mounts" not in {name for name, *_ in scrape(address)}, "all is unmounted")


def _bytes_of_layers(registry: DockerRegistry, digests: list[str]) -> int:
    """What a registry's log says that it sent of these blobs."""
    lines = registry.log.read_text(errors="replace").splitlines()
    chosen = [line for line in lines if "response completed" in line and any(digest in line for digest in digests)]
    return sum(int(size) for line in chosen for size in re.findall(r"http\.response\.written=(\d+)", line))
