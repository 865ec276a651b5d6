"""Make metric families from the states of layers. The README explains their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from lazylayer.api.events import LayerState

__all__ = ["Sums", "layer_families", "sum_families"]


class Sums:
    """Requests and network bytes of closed layers."""

    def __init__(self) -> None:
        self.requests = 0
        self.network_bytes = 0

    def add(self, state: LayerState) -> None:
        """Add the counts of a layer that closes."""
        self.requests += state.requests
        self.network_bytes += state.network_bytes


def sum_families(states: Iterable[LayerState], mounts: Mapping[str, int], closed: Sums) -> Iterator[Metric]:
    """Yield the metrics of all layers together.

    :param mounts: mounts per frontend.
    :param closed: the counts of closed layers.
    """
    known = list(states)
    yield GaugeMetricFamily("lazylayer_layers", "Open layers.", len(known))
    complete = sum(state.fetched >= state.size for state in known)
    yield GaugeMetricFamily("lazylayer_layers_complete", "Layers that are completely local.", complete)
    by_frontend = GaugeMetricFamily("lazylayer_mounts", "Current mounts.", labels=["frontend"])
    for frontend, count in sorted(mounts.items()):
        by_frontend.add_metric([frontend], count)
    yield by_frontend
    requests = closed.requests + sum(state.requests for state in known)
    yield CounterMetricFamily("lazylayer_requests", "Requests for bytes of layers.", requests)
    network_bytes = closed.network_bytes + sum(state.network_bytes for state in known)
    yield CounterMetricFamily("lazylayer_network_bytes", "Bytes of layers fetched from registries.", network_bytes)


def layer_families(states: Iterable[LayerState]) -> list[Metric]:
    """Return the metrics of each layer. Images or processes that share a layer share its series."""
    labels = ["digest"]
    size = GaugeMetricFamily("lazylayer_layer_size_bytes", "The compressed size of a layer.", labels=labels)
    fetched = GaugeMetricFamily("lazylayer_layer_fetched_bytes", "Local bytes of a layer.", labels=labels)
    requests = CounterMetricFamily("lazylayer_layer_requests", "Requests for a layer's bytes.", labels=labels)
    network_bytes = CounterMetricFamily(
        "lazylayer_layer_network_bytes", "Bytes of a layer fetched from registries.", labels=labels
    )
    failed = GaugeMetricFamily("lazylayer_layer_failed", "1 after a failure of a layer.", labels=labels)
    source = GaugeMetricFamily(
        "lazylayer_layer_source_info", "The host that served a layer last.", labels=["digest", "source"]
    )
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
