"""Measure conversion to eStargz, compared with the Go tool on the same image.

The image of the cold starts, in layers of plain gzip, is converted with `lazylayer convert` at several levels,
and with `ctr-remote image optimize --no-optimize` (stargz-snapshotter's tool, through a containerd that has
the image already). On a machine that does other things too, the processor seconds are the ones to compare.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from images.oci_layout import write_layout
from lazylayer_testing.servers.containerd import Containerd
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_testing.servers.process import run
from suite.bench import Bench, Workload
from suite.cold_image import build_layers

__all__ = ["WORKLOADS"]

# ru_maxrss includes memory inherited from the parent; the high-water mark in /proc does not.
_RUN = """
import re, runpy, sys
sys.argv[0] = "lazylayer"
try:
    runpy.run_module("lazylayer", run_name="__main__")
finally:
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""

_LEVELS = (1, 2, 3, 5, 8)
_GO = "ctr-remote image optimize"


class _Converted(NamedTuple):
    """The cost of a conversion: wall and processor seconds, bytes of layers, and bytes of memory if known."""

    wall: float
    processors: float
    size: int
    memory: int | None = None


def _measure(bench: Bench) -> None:
    levels = _LEVELS[:1] if bench.options.quick else _LEVELS
    with bench.scratch() as scratch:
        layout = scratch / "layout"
        write_layout(layout, build_layers(bench.options.work), "plain")
        for number in bench.runs():
            for level in bench.alternate([0, *levels], number):
                if level:
                    converted = _with_lazylayer(layout, level)
                else:
                    converted = _with_go(layout, scratch / f"go-{number}")
                _record(bench, f"lazylayer convert --level {level}" if level else _GO, converted)


def _record(bench: Bench, subject: str, converted: _Converted) -> None:
    bench.record("wall", subject, converted.wall, "s")
    bench.record("processors", subject, converted.processors, "s")
    bench.record("size of the layers", subject, converted.size, "bytes")
    if converted.memory is not None:
        bench.record("peak of memory", subject, converted.memory, "bytes")


def _with_go(layout: Path, scratch: Path) -> _Converted:
    with DockerRegistry(scratch / "registry") as registry, Containerd(scratch / "containerd") as containerd:
        source = registry.push_layout(layout, "plain", "bench:plain")
        target = source.replace(":plain", ":estargz")
        containerd.ctr("content", "fetch", "--plain-http", source)
        started, before = time.perf_counter(), _processors()
        containerd.ctr_remote("images", "optimize", "--oci", "--no-optimize", source, target)
        seconds, processors = time.perf_counter() - started, _processors() - before
        containerd.ctr("images", "push", "--plain-http", target)
        run(["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{target}", f"oci:{layout}:go"])
    return _Converted(seconds, processors, _layer_bytes(layout, "go"))


def _with_lazylayer(layout: Path, level: int) -> _Converted:
    command = [sys.executable, "-c", _RUN, "convert", "--level", str(level)]
    command += [f"oci:{layout}:plain", f"oci:{layout}:level-{level}"]
    started, before = time.perf_counter(), _processors()
    process = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    seconds, processors = time.perf_counter() - started, _processors() - before
    memory = int(process.stderr.split()[-1]) * 1024
    return _Converted(seconds, processors, _layer_bytes(layout, f"level-{level}"), memory)


def _processors() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _layer_bytes(layout: Path, tag: str) -> int:
    index = json.loads((layout / "index.json").read_bytes())
    (entry,) = [each for each in index["manifests"] if each["annotations"]["org.opencontainers.image.ref.name"] == tag]
    manifest = json.loads((layout / "blobs/sha256" / entry["digest"][7:]).read_bytes())
    return sum(layer["size"] for layer in manifest["layers"])


WORKLOADS = (
    Workload(
        name="convert",
        summary="`lazylayer convert` at several levels beside `ctr-remote image optimize`",
        measure=_measure,
        needs=("root", "containerd", "registry"),
        references=(_GO,),
    ),
)
