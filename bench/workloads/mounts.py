"""Measure the cost of large and of many mounts: seconds and memory by entries."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tarfile
from collections.abc import Mapping
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import suite.mount_process
from images.oci_layout import write_layout
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import ServerError, run
from suite.bench import FUSE, Bench, Peer, Workload, subject_name
from suite.commands import lazylayer
from suite.images import TAG
from suite.machine import frontends_here
from suite.memory import settled
from suite.nodes import Node

__all__ = ["WORKLOADS"]

_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_ENTRIES = 10_000
_FILES_PER_DIRECTORY = 50


def _measure_mount_time(bench: Bench) -> None:
    """Mount trees without data, each in a process of its own."""
    here, missing = frontends_here()
    for frontend, why in missing.items():
        bench.skip(subject_name(frontend), why)
    for number in bench.runs():
        for size in _SIZES[:2] if bench.options.quick else _SIZES:
            for frontend in bench.alternate(here, number):
                _mount_made_up_tree(bench, frontend, size)


def _mount_made_up_tree(bench: Bench, frontend: str, size: int) -> None:
    with bench.scratch() as scratch:
        words = [sys.executable, suite.mount_process.__file__, frontend, str(size), str(scratch)]
        found = json.loads(run(words, seconds=600))
    for case, key, unit in (
        ("first mount of a layer", "first", "s"),
        ("next mount of the layer", "again", "s"),
        ("memory of one mount (PSS)", "memory", "bytes"),
    ):
        bench.record(case, subject_name(frontend), found[key], unit, at=size, at_unit="entries")


def _measure_memory(bench: Bench) -> None:
    """Measure an idle daemon under containerd with more and more images of 10,000 entries each."""
    entries, mounts = (1_000, 3) if bench.options.quick else (_ENTRIES, 20)
    subjects: list[tuple[str, Peer | None, Mapping[str, str]]] = [
        (subject_name(frontend), None, {"mount.frontend": f'"{frontend}"'}) for frontend in frontends_here()[0]
    ]
    subjects += [(peer.name, peer, {}) for peer in bench.options.peers]
    with bench.scratch() as scratch, ExitStack() as stack:
        registry = stack.enter_context(DockerRegistry(scratch / "registry"))
        bench.say(f"  making {mounts} images")
        references = [_push_image(scratch / "image", registry, number, entries) for number in range(mounts)]
        for number in bench.runs():
            for name, peer, settings in bench.alternate(subjects, number):
                try:
                    with Node(scratch / "node", registry.host, peer, settings) as node:
                        _fill(bench, node, name, references, entries)
                except ServerError as error:
                    bench.skip(name, str(error), failed=True)
                shutil.rmtree(scratch / "node")


def _fill(bench: Bench, node: Node, name: str, references: list[str], entries: int) -> None:
    memory = [settled(node.memory)]
    for count, reference in enumerate(references, 1):
        node.pull(reference)
        if count in (1, len(references) // 2, len(references)):
            memory.append(settled(node.memory))
            bench.record("idle daemon (PSS)", name, memory[-1], "bytes", at=count * entries, at_unit="entries")
    bench.record("idle daemon without mounts (PSS)", name, memory[0], "bytes")
    extra = (memory[-1] - memory[1]) / (len(references) - 1)
    bench.record(f"each further mount of {entries:,} entries (PSS)", name, max(0.0, extra), "bytes")


def _push_image(directory: Path, registry: DockerRegistry, number: int, entries: int) -> str:
    """Push an image that shares nothing with others; return its reference."""
    layout = directory / str(number)
    layout.mkdir(parents=True)
    archive = directory / f"{number}.tar"
    choose = random.Random(number)
    with tarfile.open(archive, "w") as tar:
        for each in range(entries // (_FILES_PER_DIRECTORY + 1)):
            tar.addfile(_member(f"directory-{each}", tarfile.DIRTYPE))
            for file in range(_FILES_PER_DIRECTORY):
                member = _member(f"directory-{each}/file-{file}", tarfile.REGTYPE)
                member.size = choose.randrange(200)
                tar.addfile(member, BytesIO(choose.randbytes(member.size)))
    write_layout(layout, [archive], "plain")
    settings = {"root": str(directory / "root"), "run": str(directory / "run")}
    lazylayer("convert", f"oci:{layout}:plain", f"oci:{layout}:{TAG}", settings=settings)
    return registry.push_layout(layout, TAG, f"bench/mount-{number}:{TAG}")


def _member(name: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = 0o755
    return member


WORKLOADS = (
    Workload(
        name="mount-time",
        summary="seconds and memory of a mount of 1,000 to 1,000,000 entries",
        measure=_measure_mount_time,
        needs=("frontend",),
        references=(FUSE,),
    ),
    Workload(
        name="memory",
        summary="memory of an idle daemon under containerd with up to 20 mounts of 10,000 entries",
        measure=_measure_memory,
        needs=("root", "fuse", "containerd", "registry", "frontend"),
        references=(FUSE,),
    ),
)
