"""Implement `lazylayer metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lazylayer.cli import load_settings

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from lazylayer.api.events import MountState

__all__ = ["metrics"]


@click.command()
@click.pass_context
def metrics(context: click.Context) -> None:
    """Print metrics of all lazylayer processes on this machine, for Prometheus.

    Prints current mounts in Prometheus' text format, for example for node_exporter's textfile collector.
    `lazylayer serve` can serve its own metrics over HTTP: see [plugin.state_prometheus].
    """
    from prometheus_client import CollectorRegistry, generate_latest

    from lazylayer.cli import processes

    run = Path(load_settings(context).run)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Machine([mount for process in processes(run) for mount in process.mounts]))
    click.echo(generate_latest(registry), nl=False)


class _Machine:
    """A collector of the metrics of all mounts on this machine."""

    def __init__(self, mounts: list[MountState]) -> None:
        self._mounts = mounts

    def collect(self) -> Iterator[Metric]:
        from lazylayer_state_prometheus.families import Sums, layer_families, sum_families

        by_frontend: dict[str, int] = {}
        for mount in self._mounts:
            by_frontend[mount.frontend] = by_frontend.get(mount.frontend, 0) + 1
        # Mounts of one process that share a layer report it once each.
        states = list(dict.fromkeys(state for mount in self._mounts for state in mount.layers))
        yield from sum_families(states, by_frontend, Sums())
        yield from layer_families(states)
