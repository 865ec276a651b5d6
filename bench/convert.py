"""Conversion, side by side with the Go tool, on the same image in one run.

    python bench/convert.py [--levels 1,3,6,8] [DIRECTORY…]

Packs each directory (by default some of /usr, about 280 MB) into a layer of a plain gzip image and
converts that with `lazylayer convert` at several levels, and with `ctr-remote image optimize
--no-optimize` (stargz-snapshotter's tool, through a containerd that has the image already). Both
write eStargz. Shows seconds of wall time, the size of the layers and the peak of memory.

Needs root and the Debian packages of `scripts/debian-packages test`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from images.oci_layout import write_layout
from servers.containerd import Containerd
from servers.docker_registry import DockerRegistry

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


def _show(what: str, seconds: float, size: int, megabytes: float | None, reference: tuple[float, int] | None) -> None:
    memory = f"{megabytes:6.0f} MB peak" if megabytes is not None else " " * 14
    ratio = ""
    if reference is not None:
        ratio = f"  {reference[0] / seconds:5.1f} times as fast, {100 * size / reference[1] - 100:+.1f} % size"
    print(f"{what:32} {seconds:7.2f} s {size / 1e6:9.2f} MB {memory}{ratio}", flush=True)


def _with_go(layout: Path, scratch: Path) -> tuple[float, int]:
    with DockerRegistry(scratch / "registry") as registry, Containerd(scratch / "containerd") as containerd:
        source = registry.push_layout(layout, "plain", "bench:plain")
        target = source.replace(":plain", ":estargz")
        containerd.ctr("content", "fetch", "--plain-http", source)
        started = time.perf_counter()
        containerd.ctr_remote("images", "optimize", "--oci", "--no-optimize", source, target)
        seconds = time.perf_counter() - started
        containerd.ctr("images", "push", "--plain-http", target)
        copy = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{target}", f"oci:{layout}:go"]
        subprocess.run(copy, check=True)
    return seconds, _layer_bytes(layout, "go")


def _with_lazylayer(layout: Path, level: str) -> tuple[float, int, float]:
    """Seconds, bytes of the layers, and the peak of memory in MB."""
    command = [sys.executable, "-m", "lazylayer", "--set=cache.chunks=cache_memory", "--set=cache.ranges=cache_memory"]
    command += ["convert", "--level", level, f"oci:{layout}:plain", f"oci:{layout}:level-{level}"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit("lazylayer convert failed")
    seconds = time.perf_counter() - started
    return seconds, _layer_bytes(layout, f"level-{level}"), usage.ru_maxrss / 1024


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
        _show("ctr-remote image optimize", *go, None, None)
        for level in arguments.levels.split(","):
            seconds, size, memory = _with_lazylayer(layout, level)
            _show(f"lazylayer convert --level {level}", seconds, size, memory, go)


if __name__ == "__main__":
    main()
