"""Conversion, side by side with the Go tool, on the same image in one run.

    python bench/convert.py [--levels 1,3,6,8] [DIRECTORY…]

Packs each directory (by default some of /usr, about 280 MB) into a layer of a plain gzip image and
converts that with `lazylayer convert` at several levels, and with `ctr-remote image optimize
--no-optimize` (stargz-snapshotter's tool, through a containerd that has the image already). Both
write eStargz. Shows seconds of wall time and of processors, the size of the layers and the peak of
memory. On a machine that does other things too, the processor seconds are the ones to compare.

Needs root and the Debian packages of `scripts/debian-packages test`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from images.oci_layout import write_layout
from servers.containerd import Containerd
from servers.docker_registry import DockerRegistry

# What a process inherits spoils ru_maxrss; the high-water mark of /proc is its own.
_RUN = """
import re, runpy, sys
sys.argv[0] = "lazylayer"
try:
    runpy.run_module("lazylayer", run_name="__main__")
finally:
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""

_DIRECTORIES = ("/usr/lib/python3.11", "/usr/lib/python3", "/usr/lib/gcc", "/usr/share/perl", "/usr/share/doc")


def _pack(directories: list[Path], scratch: Path) -> list[Path]:
    archives = []
    for number, directory in enumerate(directories):
        archive = scratch / f"{number}.tar"
        command = ["tar", "--create", "--file", str(archive), "--directory", "/", "--sort=name"]
        subprocess.run([*command, str(directory).lstrip("/")], check=True)
        archives.append(archive)
    return archives


def _layer_bytes(layout: Path, tag: str) -> int:
    index = json.loads((layout / "index.json").read_bytes())
    (entry,) = [each for each in index["manifests"] if each["annotations"]["org.opencontainers.image.ref.name"] == tag]
    manifest = json.loads((layout / "blobs/sha256" / entry["digest"][7:]).read_bytes())
    return sum(layer["size"] for layer in manifest["layers"])


class _Result(NamedTuple):
    """What a conversion cost: seconds of wall and of processors, bytes of layers, peak MB of memory."""

    wall: float
    processors: float
    size: int
    memory: float | None


def _show(what: str, result: _Result, reference: _Result | None) -> None:
    memory = f"{result.memory:4.0f} MB peak" if result.memory is not None else " " * 12
    ratio = ""
    if reference is not None:
        ratio = (
            f"  {reference.wall / result.wall:5.1f} times as fast "
            f"({reference.processors / result.processors:.1f} by processors), "
            f"{100 * result.size / reference.size - 100:+.1f} % size"
        )
    times = f"{result.wall:6.2f} s wall {result.processors:7.2f} s processors"
    print(f"{what:28} {times} {result.size / 1e6:8.2f} MB {memory}{ratio}", flush=True)


def _processors() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _with_go(layout: Path, scratch: Path) -> _Result:
    with DockerRegistry(scratch / "registry") as registry, Containerd(scratch / "containerd") as containerd:
        source = registry.push_layout(layout, "plain", "bench:plain")
        target = source.replace(":plain", ":estargz")
        containerd.ctr("content", "fetch", "--plain-http", source)
        started, before = time.perf_counter(), _processors()
        containerd.ctr_remote("images", "optimize", "--oci", "--no-optimize", source, target)
        seconds, processors = time.perf_counter() - started, _processors() - before
        containerd.ctr("images", "push", "--plain-http", target)
        copy = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{target}", f"oci:{layout}:go"]
        subprocess.run(copy, check=True)
    return _Result(seconds, processors, _layer_bytes(layout, "go"), None)


def _with_lazylayer(layout: Path, level: str) -> _Result:
    command = [sys.executable, "-c", _RUN, "--set=cache.chunks=cache_memory", "--set=cache.ranges=cache_memory"]
    command += ["convert", "--level", level, f"oci:{layout}:plain", f"oci:{layout}:level-{level}"]
    started, before = time.perf_counter(), _processors()
    process = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    seconds, processors = time.perf_counter() - started, _processors() - before
    memory = int(process.stderr.split()[-1]) / 1024
    return _Result(seconds, processors, _layer_bytes(layout, f"level-{level}"), memory)


def main() -> None:
    """Measures, and prints a line for each way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--levels", default="1,2,3,6,8")
    parser.add_argument("directories", nargs="*", type=Path)
    arguments = parser.parse_args()
    directories = arguments.directories or [Path(each) for each in _DIRECTORIES if Path(each).is_dir()]
    with tempfile.TemporaryDirectory(prefix="lazylayer-bench-", dir="/var/tmp") as name:
        scratch = Path(name)
        archives = _pack(directories, scratch)
        plain = sum(each.stat().st_size for each in archives)
        print(f"{len(archives)} layers, {plain / 1e6:.0f} MB of tar, {len(os.sched_getaffinity(0))} cores")
        layout = scratch / "layout"
        write_layout(layout, archives, "plain")
        go = _with_go(layout, scratch)
        _show("ctr-remote image optimize", go, None)
        for level in arguments.levels.split(","):
            _show(f"lazylayer convert --level {level}", _with_lazylayer(layout, level), go)


if __name__ == "__main__":
    main()
