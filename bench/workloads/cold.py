"""Cold starts through containerd, as the suite records them; `cold_start` measures."""

from __future__ import annotations

import cold_start
from suite.bench import FUSE, Bench, Workload
from suite.machine import frontends_here
from suite.nodes import DEFAULT_PULL

__all__ = ["WORKLOADS"]

_OVERLAYFS = "overlayfs"
_LAZYLAYER = "lazylayer"


def _measure(bench: Bench) -> None:
    subjects = [cold_start.Subject(_LAZYLAYER)]
    if len(frontends_here()[0]) > 1:
        subjects.append(cold_start.Subject(FUSE, settings={"mount.frontend": '"frontend_fuse"'}))
    for peer in bench.options.peers:
        if "{host}" in peer.command or peer.pull != DEFAULT_PULL:
            bench.skip(peer.name, "cold starts know no {host} and no --peer-pull")
        else:
            subjects.append(cold_start.Subject(peer.name, peer.command))
    subjects.append(cold_start.Subject(_OVERLAYFS))
    for number in bench.runs():
        ordered = bench.alternate(subjects, number)
        cells = "no landmark, loopback" if bench.options.quick else ""
        for sample in cold_start.measure(bench.options.work, ordered, 1, cells):
            bench.record(f"{sample.cell}: pull and run", sample.subject, sample.pull + sample.run, "s")
            bench.record(f"{sample.cell}: pull", sample.subject, sample.pull, "s")
            bench.record(f"{sample.cell}: run", sample.subject, sample.run, "s")
            bench.record(f"{sample.cell}: requests", sample.subject, sample.requests, "count")
            bench.record(f"{sample.cell}: fetched", sample.subject, sample.fetched, "bytes")
            if sample.memory:
                bench.record(f"{sample.cell}: memory (PSS)", sample.subject, sample.memory, "bytes")


WORKLOADS = (
    Workload(
        name="cold-start",
        summary="pull and run through containerd, on loopback and over a link: seconds, requests, bytes, memory",
        measure=_measure,
        needs=("root", "fuse", "containerd", "registry", "debootstrap", "frontend"),
        references=(FUSE, _OVERLAYFS),
    ),
)
