"""Cold starts through containerd: pull and run of one image on a node with nothing on it, which is then thrown away.

The image with and without a landmark, the registry on loopback and behind a link with 20 ms round trip and
200 Mbit/s. The container runs a command other than the image's own, which is a shell; one image more has the
container's command as its own. All are made by `lazylayer convert`. lazylayer and peers pull with their own
clients. Requests and bytes are those that the registry counted.
"""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from images.oci_layout import write_layout
from lazylayer_testing.servers.containerd import Containerd
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import ServerError
from suite.bench import FUSE, Bench, Peer, Workload
from suite.cold_image import WORKLOAD, build_layers
from suite.commands import lazylayer
from suite.link import Link
from suite.machine import frontends_here
from suite.nodes import Node

__all__ = ["WORKLOADS"]

_LAZYLAYER, _OVERLAYFS = "lazylayer", "overlayfs"
_REPOSITORY = "bench/numpy"
_SHELL = ("/bin/bash",)
_PLAIN_TAG, _OWN_PLAIN_TAG = "plain", "plain-own-command"
_TAGS = {"no landmark": "no-landmark", "landmark": "landmark", "no landmark, its own command": "own-command"}
_PLAIN_OF = {"own-command": _OWN_PLAIN_TAG}
_LINKS = {"loopback": None, "20 ms, 200 Mbit/s": (20.0, 200.0)}
_QUICK = "no landmark, loopback"
_SERVED = re.compile(rb"http\.response\.written=(\d+)")


class _Subject(NamedTuple):
    name: str
    peer: Peer | None = None
    settings: Mapping[str, str] = {}


class _Cell(NamedTuple):
    """One image at one registry: its name, its reference, and that of its plain version."""

    name: str
    host: str
    reference: str
    plain: str


def _measure(bench: Bench) -> None:
    subjects = _subjects(bench)
    with bench.scratch() as scratch, ExitStack() as stack:
        registry = stack.enter_context(DockerRegistry(scratch / "registry"))
        _push_images(bench.options.work, registry)
        cells = list(_cells(stack, registry, quick=bench.options.quick))
        for number in bench.runs():
            for cell in cells:
                for subject in bench.alternate(subjects, number):
                    place = scratch / "node"
                    try:
                        _start_cold(bench, place, registry, cell, subject)
                    except ServerError as error:
                        bench.skip(subject.name, str(error), failed=True)
                        subjects.remove(subject)
                    shutil.rmtree(place)


def _subjects(bench: Bench) -> list[_Subject]:
    subjects = [_Subject(_LAZYLAYER)]
    if len(frontends_here()[0]) > 1:
        subjects.append(_Subject(FUSE, settings={"mount.frontend": '"frontend_fuse"'}))
    subjects += [_Subject(peer.name, peer) for peer in bench.options.peers]
    return [*subjects, _Subject(_OVERLAYFS)]


def _push_images(work: Path, registry: DockerRegistry) -> None:
    """Push the images to the registry; convert them once, and keep them in the work directory."""
    layout, own = work / "cold-images", work / "cold-images-own-command"
    if not (layout / "complete").exists():
        for each in (layout, own):
            shutil.rmtree(each, ignore_errors=True)
        layers = build_layers(work)
        write_layout(layout, layers, _PLAIN_TAG, command=_SHELL)
        write_layout(own, layers, _OWN_PLAIN_TAG, command=WORKLOAD)
        settings = {"root": str(work / "convert-root"), "run": str(work / "convert-run")}
        for tag in _TAGS.values():
            record = ["--record", shlex.join(WORKLOAD)] if tag == "landmark" else []
            plain = f"oci:{own}:{_OWN_PLAIN_TAG}" if tag in _PLAIN_OF else f"oci:{layout}:{_PLAIN_TAG}"
            lazylayer("convert", plain, f"oci:{layout}:{tag}", *record, settings=settings)
        (layout / "complete").touch()
    registry.push_layout(own, _OWN_PLAIN_TAG, f"{_REPOSITORY}:{_OWN_PLAIN_TAG}")
    for tag in (_PLAIN_TAG, *_TAGS.values()):
        registry.push_layout(layout, tag, f"{_REPOSITORY}:{tag}")


def _cells(stack: ExitStack, registry: DockerRegistry, *, quick: bool) -> Iterator[_Cell]:
    for link, facts in _LINKS.items():
        host = registry.host
        if facts is not None and not quick:
            milliseconds, megabits = facts
            host = stack.enter_context(Link(host, milliseconds=milliseconds, megabits=megabits)).host
        for image, tag in _TAGS.items():
            name, plain = f"{image}, {link}", _PLAIN_OF.get(tag, _PLAIN_TAG)
            if not quick or name == _QUICK:
                yield _Cell(name, host, f"{host}/{_REPOSITORY}:{tag}", f"{host}/{_REPOSITORY}:{plain}")


def _start_cold(bench: Bench, place: Path, registry: DockerRegistry, cell: _Cell, subject: _Subject) -> None:
    with _node(place, cell, subject) as node:
        reference = cell.plain if subject.name == _OVERLAYFS else cell.reference
        asked = registry.log.stat().st_size
        begin = time.monotonic()
        node.pull(reference)
        pulled = time.monotonic()
        node.run(reference, WORKLOAD)
        end = time.monotonic()
        memory = node.memory()
        with registry.log.open("rb") as log:
            log.seek(asked)
            served = [int(size) for size in _SERVED.findall(log.read())]
        node.remove(reference)

    def record(what: str, value: float, unit: str) -> None:
        bench.record(f"{cell.name}: {what}", subject.name, value, unit)

    record("pull and run", end - begin, "s")
    record("pull", pulled - begin, "s")
    record("run", end - pulled, "s")
    record("requests", len(served), "count")
    record("fetched", sum(served), "bytes")
    if memory:
        record("memory (PSS)", memory, "bytes")


@contextmanager
def _node(place: Path, cell: _Cell, subject: _Subject) -> Iterator[Node | _FullPull]:
    if subject.name == _OVERLAYFS:
        with _FullPull(place) as full_pull:
            yield full_pull
    else:
        with Node(place, cell.host, subject.peer, subject.settings) as node:
            yield node


class _FullPull:
    """A node whose containerd fetches and unpacks images, without a snapshotter; a context manager."""

    def __init__(self, directory: Path) -> None:
        self._containerd = Containerd(directory / "c")

    def __enter__(self) -> _FullPull:
        self._containerd.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._containerd.stop()

    def pull(self, reference: str) -> None:
        self._containerd.ctr("images", "pull", "--plain-http", "--snapshotter", _OVERLAYFS, reference)

    def run(self, reference: str, command: Sequence[str]) -> None:
        self._containerd.ctr("run", "--rm", "--snapshotter", _OVERLAYFS, reference, "once", *command)

    def memory(self) -> int:
        return 0

    def remove(self, reference: str) -> None:
        self._containerd.ctr("images", "remove", "--sync", reference)


WORKLOADS = (
    Workload(
        name="cold-start",
        summary="pull and run through containerd, on loopback and over a link: seconds, requests, bytes, memory",
        measure=_measure,
        needs=("root", "fuse", "containerd", "registry", "frontend"),
        references=(FUSE, _OVERLAYFS),
    ),
)
