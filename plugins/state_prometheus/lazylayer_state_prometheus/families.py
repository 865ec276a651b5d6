"""States of layers as families of metrics. The names are explained in the README."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from lazylayer.api.events import LayerState

__all__ = ["Sums", "layer_families", "sum_families"]


class Sums:
    """Requests and network bytes of layers that are closed."""

    def __init__(self) -> None:
        self.requests = 0
        self.network_bytes = 0

    def add(self, state: LayerState) -> None:
        """Adds what a layer had when it was closed."""
        self.requests += state.requests
        self.network_bytes += state.network_bytes


def sum_families(states: Iterable[LayerState], mounts: Mapping[str, int], closed: Sums) -> Iterator[Metric]:
    """What is told of all layers together; `mounts` counts those of each frontend."""
    known = list(states)
    yield GaugeMetricFamily("lazylayer_layers", "Layers that are open.", len(known))
    complete = sum(state.fetched >= state.size for state in known)
    yield GaugeMetricFamily("lazylayer_layers_complete", "Layers of which everything is here.", complete)
    by_frontend = GaugeMetricFamily("lazylayer_mounts", "What is mounted now.", labels=["frontend"])
    for frontend, count in sorted(mounts.items()):
        by_frontend.add_metric([frontend], count)
    yield by_frontend
    requests = closed.requests + sum(state.requests for state in known)
    yield CounterMetricFamily("lazylayer_requests", "Requests for bytes of layers.", requests)
    network_bytes = closed.network_bytes + sum(state.network_bytes for state in known)
    yield CounterMetricFamily("lazylayer_network_bytes", "Bytes of layers that came from registries.", network_bytes)


def layer_families(states: Iterable[LayerState]) -> list[Metric]:
    """What is told of each layer. A layer that several images share, or processes, has one series of each."""
    labels = ["digest"]
    size = GaugeMetricFamily("lazylayer_layer_size_bytes", "The compressed size of a layer.", labels=labels)
    fetched = GaugeMetricFamily("lazylayer_layer_fetched_bytes", "How much of a layer is here.", labels=labels)
    requests = CounterMetricFamily("lazylayer_layer_requests", "Requests for a layer's bytes.", labels=labels)
    network_bytes = CounterMetricFamily(
        "lazylayer_layer_network_bytes", "Bytes of a layer that came from registries.", labels=labels
    )
    failed = GaugeMetricFamily("lazylayer_layer_failed", "Whether something of a layer failed.", labels=labels)
    source = GaugeMetricFamily("lazylayer_layer_source_info", "Who served a layer last.", labels=["digest", "source"])
    for digest, shared in _by_digest(states).items():
        size.add_metric([digest], max(state.size for state in shared))
        fetched.add_metric([digest], max(state.fetched for state in shared))
        requests.add_metric([digest], sum(state.requests for state in shared))
        network_bytes.add_metric([digest], sum(state.network_bytes for state in shared))
        failed.add_metric([digest], any(state.error for state in shared))
        for name in sorted({state.source for state in shared if state.source}):
            source.add_metric([digest, name], 1)
    return [size, fetched, requests, network_bytes, failed, source]


def _by_digest(states: Iterable[LayerState]) -> dict[str, list[LayerState]]:
    layers: dict[str, list[LayerState]] = {}
    for state in states:
        layers.setdefault(state.digest, []).append(state)
    return dict(sorted(layers.items()))
