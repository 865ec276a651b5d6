"""Metrics for Prometheus: what is mounted, fetched and failed, and which registry or mirror served it.

plugin      the plugin: which layers there are, what happened
families    states as families of metrics
server      offers them over HTTP
command     `lazylayer metrics`
"""

from __future__ import annotations

from loguru import logger

from lazylayer_state_prometheus.plugin import NAME, Options, StatePrometheus

__all__ = ["NAME", "Options", "StatePrometheus"]

logger.disable(__name__)
