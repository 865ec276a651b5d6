"""Cold starts through containerd: pull and run of one image, side by side, alternating, in one run.

    python bench/cold_start.py [--runs N] [--peer 'NAME=CMD {sock} {root}']… [--work DIR] [--json FILE]

A node with nothing on it, a real containerd and Debian's docker-registry: pulls an image of Debian,
Python and numpy and runs `import numpy` in a container, then is thrown away. Cells: the image with
and without a landmark, the registry on loopback and behind a link with 20 ms round trip and
200 Mbit/s. Subjects: lazylayer, each `--peer` (any snapshotter that serves containerd's API on {sock}
with its state in {root}; it pulls with `ctr-remote images rpull`), and containerd with overlayfs, which
fetches and unpacks the whole image. Both kinds of eStargz image are made by `lazylayer convert`.

Shows the medians of pull, run and their sum in seconds, of requests and megabytes that the registry
served, and of the memory (PSS) of the snapshotter afterwards. Needs root, debootstrap and the Debian
packages of `scripts/debian-packages test`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from cold_start_image import WORKLOAD, build_layers
from images.oci_layout import write_layout
from link import Link
from servers.containerd import Containerd
from servers.docker_registry import DockerRegistry
from servers.lazylayer_daemon import LazylayerDaemon
from servers.process import ServerProcess, run

__all__ = ["Sample", "measure"]

_REPOSITORY = "bench/numpy"
_LINKS = {"loopback": None, "20 ms, 200 Mbit/s": (20.0, 200.0)}
_IMAGES = ("no landmark", "landmark")
_SERVED = re.compile(r"http\.response\.written=(\d+)")
_SOURCE_TAG, _PLAIN_TAG = "source", "plain"


class Sample(NamedTuple):
    """One cold start. Times in seconds, `memory` and `fetched` in bytes."""

    cell: str
    subject: str
    pull: float
    run: float
    requests: int
    fetched: int
    memory: int


class Subject(NamedTuple):
    """What is measured: a name, and the command of a peer, or none for lazylayer and overlayfs."""

    name: str
    command: str = ""
    settings: Mapping[str, str] = {}


def measure(work: Path, subjects: Sequence[Subject], runs: int, cells: str = "") -> list[Sample]:
    """Cold starts of every cell whose name contains `cells`, `runs` times each, the subjects alternating."""
    samples = []
    with tempfile.TemporaryDirectory(prefix="ll-cold-") as scratch, ExitStack() as stack:
        registry = stack.enter_context(DockerRegistry(Path(scratch, "registry")))
        tags = _push_images(work, registry)
        hosts = {
            name: registry.host if link is None else stack.enter_context(_link(registry, *link))
            for name, link in _LINKS.items()
        }
        for number in range(runs):
            for image in _IMAGES:
                for link, host in hosts.items():
                    cell = f"{image}, {link}"
                    if cells not in cell:
                        continue
                    for subject in subjects:
                        tag = tags[image] if subject.name != "overlayfs" else _PLAIN_TAG
                        place = Path(scratch, f"{number}")
                        sample = _start_cold(place, registry, f"{host}/{_REPOSITORY}:{tag}", subject, cell)
                        shutil.rmtree(place)
                        samples.append(sample)
                        print(
                            f"  {sample.cell}: {sample.subject} {sample.pull:.2f} + {sample.run:.2f}", file=sys.stderr
                        )
    return samples


@contextmanager
def _link(registry: DockerRegistry, milliseconds: float, megabits: float) -> Iterator[str]:
    with Link(registry.host, milliseconds=milliseconds, megabits=megabits) as link:
        yield link.host


def _push_images(work: Path, registry: DockerRegistry) -> dict[str, str]:
    """Puts the images into the registry, converted once for all runs of the bench; the tag of each kind."""
    layout = work / "layout"
    if not (layout / "complete").exists():
        shutil.rmtree(layout, ignore_errors=True)
        write_layout(layout, build_layers(work), _SOURCE_TAG, command=WORKLOAD)
        _convert(f"oci:{layout}:{_SOURCE_TAG}", f"oci:{layout}:no-landmark")
        _convert(f"oci:{layout}:{_SOURCE_TAG}", f"oci:{layout}:landmark", "--record", _as_words(WORKLOAD))
        (layout / "complete").touch()
    registry.push_layout(layout, _SOURCE_TAG, f"{_REPOSITORY}:{_PLAIN_TAG}")
    tags = {}
    for image in _IMAGES:
        tags[image] = image.replace(" ", "-")
        registry.push_layout(layout, tags[image], f"{_REPOSITORY}:{tags[image]}")
    return tags


def _as_words(command: Sequence[str]) -> str:
    return " ".join(f"'{word}'" for word in command)


def _convert(source: str, destination: str, *options: str) -> None:
    run([sys.executable, "-m", "lazylayer", "convert", source, destination, *options])


def _start_cold(place: Path, registry: DockerRegistry, reference: str, subject: Subject, cell: str) -> Sample:
    host = reference.partition("/")[0]
    with ExitStack() as stack:
        snapshotters, pid = _serve(stack, place, host, subject)
        containerd = stack.enter_context(Containerd(place / "c", snapshotters=snapshotters))
        asked = registry.log.stat().st_size
        begin = time.monotonic()
        _pull(containerd, reference, subject)
        pulled = time.monotonic()
        snapshotter = "overlayfs" if subject.name == "overlayfs" else "lazy"
        containerd.ctr("run", "--rm", "--snapshotter", snapshotter, reference, "once", *WORKLOAD)
        end = time.monotonic()
        memory = sum(map(_proportional_set_size, _family(pid))) if pid else 0
        with registry.log.open("rb") as log:
            log.seek(asked)
            served = [int(size) for size in _SERVED.findall(log.read().decode(errors="replace"))]
        containerd.ctr("images", "remove", "--sync", reference)
    return Sample(cell, subject.name, pulled - begin, end - pulled, len(served), sum(served), memory)


def _serve(stack: ExitStack, place: Path, host: str, subject: Subject) -> tuple[dict[str, Path], int]:
    """Starts the subject's snapshotter; its sockets by name, and its process id, 0 for none."""
    if subject.name == "overlayfs":
        return {}, 0
    if not subject.command:
        settings = {"log.level": '"INFO"', **subject.settings}
        daemon = stack.enter_context(LazylayerDaemon(place / "l", plain_http=[host], settings=settings))
        return {"lazy": daemon.address}, daemon.pid
    socket, root = place / "p.sock", place / "p"
    root.mkdir(parents=True)
    words = [word.format(sock=socket, root=root) for word in subject.command.split()]
    server = ServerProcess(words, log=place / "peer.log", ready=socket.exists)
    server.start()
    stack.callback(_unmount_below, root)
    stack.callback(server.stop)
    return {"lazy": socket}, server.pid


def _unmount_below(root: Path) -> None:
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        if (mountpoint := line.split()[1]).startswith(f"{root}/"):
            subprocess.run(["umount", "--lazy", mountpoint], check=True)


def _pull(containerd: Containerd, reference: str, subject: Subject) -> None:
    if subject.name == "overlayfs":
        containerd.ctr("images", "pull", "--plain-http", "--snapshotter", "overlayfs", reference)
    else:
        containerd.ctr_remote("images", "rpull", "--plain-http", "--snapshotter", "lazy", reference)


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in _family(int(child)))]


def _proportional_set_size(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _print_table(samples: Sequence[Sample]) -> None:
    print(f"{'cell':34} {'subject':16} {'pull':>6} {'run':>6} {'sum':>6}  requests  fetched    memory")
    for cell in dict.fromkeys(sample.cell for sample in samples):
        for subject in dict.fromkeys(sample.subject for sample in samples):
            chosen = [sample for sample in samples if (sample.cell, sample.subject) == (cell, subject)]
            if not chosen:
                continue
            pull, ran = (statistics.median(getattr(each, name) for each in chosen) for name in ("pull", "run"))
            total = statistics.median(each.pull + each.run for each in chosen)
            requests, fetched, memory = (
                statistics.median(getattr(each, name) for each in chosen) for name in ("requests", "fetched", "memory")
            )
            print(
                f"{cell:34} {subject:16} {pull:6.2f} {ran:6.2f} {total:6.2f}  {requests:8.0f}  "
                f"{fetched / 1e6:5.1f} MB  {memory / 1e6:5.0f} MB"
            )


def _main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer", action="append", default=[], help="NAME=CMD {sock} {root}")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/lazylayer-bench"))
    parser.add_argument("--cells", default="", help="only the cells whose name contains this")
    parser.add_argument("--no-overlayfs", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    peers = [Subject(*peer.split("=", 1)) for peer in options.peer]
    subjects = [Subject("lazylayer"), *peers, *([] if options.no_overlayfs else [Subject("overlayfs")])]
    samples = measure(options.work, subjects, options.runs, options.cells)
    _print_table(samples)
    if options.json is not None:
        options.json.write_text(json.dumps([sample._asdict() for sample in samples], indent=1) + "\n")


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("bench/cold_start.py needs root")
    _main()
