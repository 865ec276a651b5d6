"""What the metrics say, and how they are offered."""

from __future__ import annotations

import gc
import http.client
import re
import socket
import stat
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from prometheus_client.parser import text_string_to_metric_families

from lazylayer.api.events import LayerState, StateEvent
from lazylayer.api.oci import Digest, sha256_digest
from lazylayer.errors import ConfigurationError
from lazylayer_state_prometheus import StatePrometheus
from lazylayer_testing.configuring import configured
from lazylayer_testing.servers.process import free_port

README = Path(__file__).parent.parent / "README.md"


class OpenLayer:
    """A layer as the plugin sees it."""

    def __init__(self, name: str, size: int = 1000, reference: str = "registry.test/image:1") -> None:
        self.reference = reference
        self.digest: Digest = sha256_digest(name.encode())
        self.size = size
        self.fetched = 0
        self.requests = 0
        self.network_bytes = 0
        self.error = ""
        self.source = ""

    def state(self) -> LayerState:
        return LayerState(
            self.digest, self.size, self.fetched, self.error, self.requests, self.network_bytes, self.source
        )


def made(**options: object) -> Any:
    return configured(StatePrometheus(), "state_prometheus", {"address": f"127.0.0.1:{free_port()}", **options})


def values(text: bytes) -> dict[str, float]:
    """Every sample by name and labels, as Prometheus reads them."""
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_layers_are_told_of_as_they_are_now() -> None:
    plugin = made()
    layer = OpenLayer("a")
    plugin.lazylayer_add_virtual_entries(layer)
    before = values(plugin.render())
    digest = f" digest={layer.digest}"
    assert before["lazylayer_layers"] == 1 and before["lazylayer_layers_complete"] == 0
    assert not [name for name in before if "source_info" in name], "no host has served it yet"
    layer.fetched, layer.requests, layer.network_bytes, layer.source = 1000, 3, 1200, "mirror.test"
    after = values(plugin.render())
    assert after["lazylayer_layers_complete"] == 1
    assert after[f"lazylayer_layer_size_bytes{digest}"] == after[f"lazylayer_layer_fetched_bytes{digest}"] == 1000
    assert after[f"lazylayer_layer_requests_total{digest}"] == after["lazylayer_requests_total"] == 3
    assert after[f"lazylayer_layer_network_bytes_total{digest}"] == after["lazylayer_network_bytes_total"] == 1200
    assert after[f"lazylayer_layer_source_info{digest} source=mirror.test"] == 1
    assert after[f"lazylayer_layer_failed{digest}"] == 0


def test_a_layer_that_images_share_has_one_series() -> None:
    plugin = made()
    layers = [OpenLayer("a", reference=f"registry.test/image:{number}") for number in range(2)]
    for number, layer in enumerate(layers):
        layer.requests, layer.source = 1 + number, f"host-{number}"
        plugin.lazylayer_add_virtual_entries(layer)
    layers[0].error = "gone"
    told = values(plugin.render())
    digest = f" digest={layers[0].digest}"
    assert told[f"lazylayer_layer_requests_total{digest}"] == 3
    assert told[f"lazylayer_layer_failed{digest}"] == 1
    assert told[f"lazylayer_layer_source_info{digest} source=host-0"] == 1
    assert told[f"lazylayer_layer_source_info{digest} source=host-1"] == 1


def test_series_go_when_their_layer_is_closed_and_sums_stay() -> None:
    plugin = made()
    layer = OpenLayer("a")
    layer.requests, layer.network_bytes = 5, 700
    plugin.lazylayer_add_virtual_entries(layer)
    plugin.lazylayer_report_state(StateEvent("closed", layer.reference, (layer.state(),)))
    told = values(plugin.render())
    assert told["lazylayer_layers"] == 0
    assert not [name for name in told if str(layer.digest) in name]
    assert (told["lazylayer_requests_total"], told["lazylayer_network_bytes_total"]) == (5, 700)
    plugin.lazylayer_report_state(StateEvent("closed", layer.reference, (layer.state(),)))
    assert values(plugin.render())["lazylayer_requests_total"] == 5, "told twice, counted once"


def test_layers_are_not_kept_alive() -> None:
    plugin = made()
    plugin.lazylayer_add_virtual_entries(OpenLayer("a"))
    gc.collect()
    assert values(plugin.render())["lazylayer_layers"] == 0


def test_events_and_mounts_are_counted() -> None:
    plugin = made(address="")
    plugin.lazylayer_report_state(StateEvent("failed"))
    plugin = made()
    for kind, mountpoint in (("mounted", "/a"), ("mounted", "/b"), ("unmounted", "/a"), ("failed", "")):
        plugin.lazylayer_report_state(StateEvent(kind, mountpoint=mountpoint, frontend="frontend_fuse"))  # type: ignore[arg-type]
    told = values(plugin.render())
    assert told["lazylayer_mounts frontend=frontend_fuse"] == 1
    assert told["lazylayer_events_total kind=mounted"] == 2
    assert told["lazylayer_events_total kind=failed"] == 1


def test_a_mount_has_its_own_frontend_before_the_daemon_has_started() -> None:
    """Layers are mounted again after a restart while the daemon still chooses the frontend of new mounts."""
    plugin = made()
    plugin.lazylayer_report_state(StateEvent("mounted", mountpoint="/a", frontend="frontend_erofs"))
    plugin.lazylayer_report_state(StateEvent("mounted", mountpoint="/b", frontend="frontend_fuse"))
    told = values(plugin.render())
    assert told["lazylayer_mounts frontend=frontend_erofs"] == 1
    assert told["lazylayer_mounts frontend=frontend_fuse"] == 1


def test_without_layers_only_sums_are_told() -> None:
    plugin = made(layers=False)
    layer = OpenLayer("a")
    plugin.lazylayer_add_virtual_entries(layer)
    assert not [name for name in values(plugin.render()) if name.startswith("lazylayer_layer_")]


def test_every_metric_is_explained_with_its_type_and_labels() -> None:
    plugin = made()
    layer = OpenLayer("a")
    layer.source = "host"
    plugin.lazylayer_add_virtual_entries(layer)
    plugin.lazylayer_report_state(StateEvent("mounted", mountpoint="/a", frontend="f"))
    told = {}
    for family in text_string_to_metric_families(plugin.render().decode()):
        if not family.name.startswith(("process_", "python_")):
            suffix = "_total" if family.type == "counter" else ""
            told[family.name + suffix] = (family.type, sorted({key for each in family.samples for key in each.labels}))
    rows = re.findall(r"^\| `(lazylayer_\w+)` \| (\w+) \| (.*?) \|", README.read_text(), re.MULTILINE)
    assert told == {name: (kind, sorted(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


# --- HTTP ----------------------------------------------------------------------------------------


@contextmanager
def serving(plugin: Any) -> Iterator[str]:
    plugin.lazylayer_daemon_started()
    try:
        yield f"http://{plugin._options.address}"
    finally:
        plugin.lazylayer_close()


def test_metrics_are_at_their_address() -> None:
    with serving(made()) as url:
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            told = values(answer.read())
        assert told["lazylayer_layers"] == 0
        assert told["process_open_fds"] > 0


@pytest.mark.parametrize("path", ["/", "/metricsx", "/../etc/passwd", "/metrics/"])
def test_nothing_else_is_there(path: str) -> None:
    with serving(made()) as url, pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(url + path)


def test_no_other_method_is_known() -> None:
    with serving(made()) as url, pytest.raises(urllib.error.HTTPError, match="501"):
        urllib.request.urlopen(urllib.request.Request(f"{url}/metrics", method="POST", data=b"x"))


def test_a_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "run/metrics.sock"
    for _ in range(2):
        with serving(made(address=str(path))):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            connection = http.client.HTTPConnection("localhost")
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.connect(str(path))
            connection.request("GET", "/metrics")
            assert b"lazylayer_layers 0.0" in connection.getresponse().read()
            connection.close()
        assert not path.exists()


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()
    with serving(made(address=str(path))):
        assert path.is_socket()


def test_an_address_that_is_taken_is_a_warning() -> None:
    lines: list[str] = []
    logger.enable("lazylayer_state_prometheus")
    sink = logger.add(lines.append, format="{level} {message}")
    try:
        plugin = made()
        with serving(plugin):
            other = made(address=plugin._options.address)
            with serving(other):
                pass
    finally:
        logger.remove(sink)
        logger.disable("lazylayer_state_prometheus")
    assert f"WARNING cannot serve metrics at {plugin._options.address}: Address already in use\n" in map(str, lines)


@pytest.mark.parametrize("address", ["9464", "host", "host:", ":9464", "host:99999", "host:-1", "relative/path"])
def test_an_address_that_is_none_is_refused_at_the_start(address: str) -> None:
    with pytest.raises(ConfigurationError, match="expected HOST:PORT or the absolute path"):
        made(address=address)


def test_scrapes_while_layers_come_and_go() -> None:
    plugin = made()
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            layer = OpenLayer(f"{number % 7}")
            plugin.lazylayer_add_virtual_entries(layer)
            plugin.lazylayer_report_state(StateEvent("closed", layer.reference, (layer.state(),)))

    threads = [threading.Thread(target=change) for _ in range(3)]
    with serving(plugin) as url:
        for thread in threads:
            thread.start()
        try:
            for _ in range(30):
                with urllib.request.urlopen(f"{url}/metrics") as answer:
                    assert values(answer.read())["lazylayer_layers"] <= 7
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_an_idle_client_holds_nobody_up() -> None:
    plugin = made()
    with serving(plugin) as url:
        host, port = plugin._options.address.split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(5)]
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
            assert answer.status == 200
        for each in idle:
            each.close()
