"""`lazylayer status --watch` as a live table, where a terminal and rich are there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from lazylayer.api.events import MountState

__all__ = ["Progress", "measure", "watch"]


class Progress(NamedTuple):
    """One row: a mount, how much of it is here, and how fast it comes."""

    mountpoint: str
    reference: str
    fetched: int
    size: int
    rate: float
    """Bytes of the network each second since the last look."""
    from_cache: float
    """The share of what is here that the cache had, 0 to 1."""
    requests: int
    errors: int


def measure(before: Sequence[MountState], now: Sequence[MountState], seconds: float) -> list[Progress]:
    """Return a row for each mount, with rates since `before`, `seconds` ago."""
    earlier = {mount.mountpoint: _network(mount) for mount in before}
    rows = []
    for mount in now:
        fetched, network = sum(layer.fetched for layer in mount.layers), _network(mount)
        came = network - earlier.get(mount.mountpoint, network)
        rows.append(
            Progress(
                mountpoint=mount.mountpoint,
                reference=mount.reference,
                fetched=fetched,
                size=sum(layer.size for layer in mount.layers),
                rate=max(came, 0) / seconds if seconds else 0.0,
                from_cache=1 - min(network, fetched) / fetched if fetched else 0.0,
                requests=sum(layer.requests for layer in mount.layers),
                errors=sum(bool(layer.error) for layer in mount.layers),
            )
        )
    return rows


def watch(look: Callable[[], tuple[Sequence[MountState], str]], console: Console, rounds: int = 0) -> None:
    """Show a table until interrupted, or for `rounds`; `look` returns the mounts, and what to say below. Needs rich."""
    from rich.console import Group
    from rich.live import Live

    before, last = look()[0], time.monotonic()
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            mounts, note = look()
            now = time.monotonic()
            live.update(Group(_table(measure(before, mounts, now - last)), note), refresh=True)
            rounds -= 1
            if not rounds:
                return
            before, last = mounts, now
            time.sleep(1)


def _network(mount: MountState) -> int:
    return sum(layer.network_bytes for layer in mount.layers)


def _table(rows: Sequence[Progress]) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table("mount", "image", "here", "", "rate", "from cache", "requests", "errors", box=None)
    for row in rows:
        share = row.fetched / row.size if row.size else 1.0
        table.add_row(
            row.mountpoint,
            row.reference,
            ProgressBar(total=100, completed=100 * share, width=20),
            f"{row.fetched / 1e6:.1f} of {row.size / 1e6:.1f} MB",
            f"{row.rate / 1e6:.1f} MB/s",
            f"{row.from_cache:.0%}",
            str(row.requests),
            f"[red]{row.errors}[/red]" if row.errors else "0",
        )
    return table
