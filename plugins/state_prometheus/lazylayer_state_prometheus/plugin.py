"""The plugin: counts events, tracks open layers, and serves their metrics.

Never call `Layer.state` while holding `StatePrometheus._lock`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec
from loguru import logger

from lazylayer import hookimpl
from lazylayer.api.events import LayerState, StateEvent
from lazylayer.api.mounting import VirtualDirectory
from lazylayer_state_prometheus.addresses import parse_address

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from lazylayer.api.opened import OpenedLayer
    from lazylayer_state_prometheus.families import Sums
    from lazylayer_state_prometheus.server import MetricsServer

__all__ = ["NAME", "Options", "StatePrometheus"]

NAME = "state_prometheus"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugin.state_prometheus]`."""

    address: str = ""
    """Address of the metrics of `lazylayer serve`: HOST:PORT, [ADDRESS]:PORT or a unix socket's path."""
    layers: bool = True
    """Export series for each layer."""


class StatePrometheus:
    """The plugin. Without an address, it tracks and imports nothing."""

    def __init__(self) -> None:
        self._options = Options()
        self._lock = threading.Lock()
        self._layers: dict[tuple[str, str], weakref.ref[OpenedLayer]] = {}
        self._frontends: dict[str, str] = {}
        self._events: dict[str, int] = {}
        self._closed: Sums | None = None
        self._server: MetricsServer | None = None

    @hookimpl
    def lazylayer_configure(self, options: Options) -> None:
        """Store `[plugin.state_prometheus]` and check its address."""
        self._options = options
        address = self._options.address
        if address and not address.startswith("/"):
            parse_address(address)

    @hookimpl
    def lazylayer_daemon_started(self) -> None:
        """Start the metrics server. Only the daemon serves: other processes would need the same address."""
        if not self._options.address:
            return
        from lazylayer_state_prometheus.server import MetricsServer

        try:
            self._server = MetricsServer(self._options.address, self.render)
        except OSError as error:
            reason = error.strerror or str(error)
            logger.warning("cannot serve metrics at {address}: {reason}", address=self._options.address, reason=reason)
        else:
            logger.info("serving metrics at {address}", address=self._options.address)

    @hookimpl
    def lazylayer_add_virtual_entries(self, layer: OpenedLayer) -> Mapping[bytes, VirtualDirectory] | None:
        """Track a layer that is opened; add no entries."""
        if self._options.address:
            with self._lock:
                self._layers[str(layer.reference), layer.digest] = weakref.ref(layer)
        return None

    @hookimpl
    def lazylayer_report_state(self, event: StateEvent) -> None:
        """Count an event."""
        if not self._options.address:
            return
        with self._lock:
            self._events[event.kind] = self._events.get(event.kind, 0) + 1
            if event.kind == "mounted":
                self._frontends[event.mountpoint] = event.frontend
            elif event.kind == "unmounted":
                self._frontends.pop(event.mountpoint, None)
            elif event.kind == "closed":
                for state in event.layers:
                    if self._layers.pop((event.reference, state.digest), None) is not None:
                        self._sums().add(state)

    @hookimpl
    def lazylayer_close(self) -> None:
        """Stop the metrics server."""
        if self._server is not None:
            self._server.close()

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families, as a collector of prometheus_client."""
        from prometheus_client.core import CounterMetricFamily

        from lazylayer_state_prometheus.families import layer_families, sum_families

        with self._lock:
            layers = [layer for reference in self._layers.values() if (layer := reference()) is not None]
            mounts: dict[str, int] = {}
            for frontend in self._frontends.values():
                mounts[frontend] = mounts.get(frontend, 0) + 1
            kinds = dict(self._events)
            closed = self._sums()
        states: list[LayerState] = [layer.state() for layer in layers]
        yield from sum_families(states, mounts, closed)
        events = CounterMetricFamily("lazylayer_events", "Events of layers and mounts.", labels=["kind"])
        for kind, count in sorted(kinds.items()):
            events.add_metric([kind], count)
        yield events
        if self._options.layers:
            yield from layer_families(states)

    def _sums(self) -> Sums:
        from lazylayer_state_prometheus.families import Sums

        if self._closed is None:
            self._closed = Sums()
        return self._closed
