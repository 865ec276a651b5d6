"""The live table of `lazylayer status --watch`."""

from __future__ import annotations

import io

import pytest

from lazylayer.api.events import LayerState, MountState
from lazylayer.api.oci import Digest
from lazylayer.cli.watch import Progress, measure, watch


def mount(fetched: int, network: int, error: str = "") -> MountState:
    layer = LayerState(Digest("sha256:1"), 10_000_000, fetched, error, network // 1_000_000, network)
    return MountState("/mnt", "registry.test/app:1", "frontend_fuse", (layer,))


def test_rates_are_of_the_network_since_the_last_look() -> None:
    (row,) = measure([mount(1_000_000, 1_000_000)], [mount(8_000_000, 5_000_000, "failed")], 2.0)
    assert row == Progress("/mnt", "registry.test/app:1", 8_000_000, 10_000_000, 2_000_000.0, 0.375, 5, 1)


def test_a_new_mount_has_no_rate_yet() -> None:
    (row,) = measure([], [mount(0, 0)], 1.0)
    assert (row.rate, row.from_cache, row.errors) == (0.0, 0.0, 0)


def test_the_table_is_drawn() -> None:
    console = pytest.importorskip("rich.console")
    out = io.StringIO()
    watch(lambda: ([mount(8_000_000, 4_000_000)], "a note"), console.Console(file=out, width=150), rounds=1)
    shown = out.getvalue()
    assert "8.0 of 10.0 MB" in shown
    assert "registry.test/app:1" in shown
    assert "50%" in shown
    assert "a note" in shown
