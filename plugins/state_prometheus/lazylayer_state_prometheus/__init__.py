"""Metrics for Prometheus: mounts, fetched bytes, failures, and the registry or mirror of each layer.

plugin      the plugin: counts events, knows the open layers
families    metric families from layer states
server      the HTTP server
addresses   the server's address
command     `lazylayer metrics`
"""

from __future__ import annotations

from loguru import logger

from lazylayer_state_prometheus.plugin import NAME, Options, StatePrometheus

__all__ = ["NAME", "Options", "StatePrometheus"]

logger.disable(__name__)
