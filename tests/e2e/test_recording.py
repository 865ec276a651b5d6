"""A recorded workload starts from what was prefetched: it asks the registry for nothing more."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from e2e.command_line import CommandLine
from images.go_image import GoImages
from lazylayer.api.byteranges import ByteRanges
from lazylayer.api.mounting import Missing
from lazylayer.api.oci import parse_reference
from lazylayer.layers.layer import Layer
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.program import Program
from lazylayer_testing.servers.docker_registry import DockerRegistry
from lazylayer_tool_images.profiles import read_profile

pytestmark = [pytest.mark.fuse, pytest.mark.servers]

WORKLOAD = "import numpy; assert numpy.linalg.det(numpy.eye(3)) == 1"
FORMATS = ["estargz", "zstdchunked"]
FRONTENDS = ["frontend_fuse", "frontend_erofs"]


@pytest.fixture(scope="module")
def directory(as_root: None, server_directory: Path) -> Iterator[Path]:
    directory = server_directory / "recording"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def plain(go_images: GoImages, numpy_layers: list[Path]) -> str:
    return go_images.push_plain(numpy_layers)


@pytest.fixture(scope="module", params=FORMATS)
def recorded(request: pytest.FixtureRequest, plain: str, directory: Path) -> tuple[str, Path]:
    """The image with what the workload reads in front, and the record."""
    record = directory / f"record-{request.param}"
    target = plain.removesuffix(":plain") + f":recorded-{request.param}"
    words = ["--format", request.param, "--record", f"python3 -c '{WORKLOAD}'", "--record-out", str(record)]
    CommandLine(directory).run("convert", "--plain-http", *words, plain, target)
    return target, record


@pytest.mark.parametrize("frontend", FRONTENDS)
def test_recorded_workload_asks_for_nothing_more(
    recorded: tuple[str, Path], directory: Path, docker_registry: DockerRegistry, frontend: str
) -> None:
    reference, record = recorded
    profile = read_profile(record)
    assert {entry.layer for entry in profile} == {0, 1, 2}
    assert any(b"/blas/libblas.so.3" in entry.path for entry in profile), "found through links"
    mountpoint = directory / "mountpoint"
    mountpoint.mkdir(exist_ok=True)
    settings = [f"root={directory}/{frontend}", f"run={directory}/run", "background.enabled=false"]
    settings += ["cache.chunks=cache_memory", "cache.ranges=cache_memory", f"mount.frontend={frontend}"]
    settings += [f'resolve.plain_http=["{docker_registry.host}"]']
    with Program.load(overrides=settings) as program, closing(Filesystem(program)) as filesystem:
        if isinstance(found := program.hooks.of(frontend).probe_frontend(), Missing):
            pytest.skip(str(found))
        with closing(filesystem.open_image(parse_reference(reference))) as opened:
            opening = sum(layer.blob.network_bytes for layer in opened.layers)
            filesystem.mount_image(str(mountpoint), parse_reference(reference))
            filesystem.check(str(mountpoint))
            fetched = sum(layer.blob.network_bytes for layer in opened.layers) - opening
            asked = docker_registry.log.read_bytes().count(b"/blobs/")
            subprocess.run(["chroot", mountpoint, "/usr/bin/python3", "-c", WORKLOAD], check=True)
            assert docker_registry.log.read_bytes().count(b"/blobs/") == asked
            needed = sum(
                compressed_size(layer, {entry.path for entry in profile if entry.layer == number})
                for number, layer in enumerate(opened.layers)
            )
            assert 0 < fetched < 1.3 * needed
        filesystem.unmount(str(mountpoint))


def compressed_size(layer: Layer, paths: set[bytes]) -> int:
    """Bytes of the blob that hold the content of these files; what they share counts once."""
    members = ByteRanges()
    for path, entry in layer.tree.walk():
        if path in paths:
            for number in range(entry.first_chunk, entry.first_chunk + entry.chunk_count):
                members.add(*layer.contents.chunks.member_range(layer.contents.chunks.member_of(number)))
    return members.total


def test_record_is_that_of_the_go_tool_too(recorded: tuple[str, Path], plain: str, directory: Path) -> None:
    """The record gives the same image as recording did, also when other fields are in it, as the Go tool writes it."""
    reference, record = recorded
    form = reference.rpartition("-")[2]
    lines = [json.loads(line) for line in record.read_bytes().splitlines()]
    go = directory / "go-record"
    go.write_text("".join(json.dumps({**line, "manifestDigest": "sha256:0"}) + "\n" for line in lines))
    again = f"oci:{directory}/again-{form}:v"
    words = ["convert", "--json", "--plain-http", "--format", form, "--profile", str(go)]
    report = json.loads(CommandLine(directory).run(*words, plain, again).stdout)
    copied = json.loads(CommandLine(directory).run("convert", "--json", "--plain-http", "--reuse", reference,
                                                   f"oci:{directory}/copied-{form}:v").stdout)  # fmt: skip
    assert report["digest"] == copied["digest"]


CONFINED = """
import ctypes, errno, os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status
assert int(status["CapBnd"], 16) & (1 << 21 | 1 << 27 | 1 << 13) == 0, "CAP_SYS_ADMIN, CAP_MKNOD, CAP_NET_RAW"
assert open("/proc/self/uid_map").read().split()[1:] == [str(0x6fff0000), "65536"]
assert os.getuid() == 0 and os.stat("/").st_uid == 0 and os.stat("/usr/bin").st_uid == 0
open("/usr/bin/new", "w").write("x"); os.remove("/usr/bin/new"); os.chown("/tmp", 5, 6)
for path in ("/proc/kcore", "/proc/timer_list"):
    assert not os.path.exists(path) or open(path, "rb").read(1) == b"", path
for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
    try:
        open(path, "w")
    except OSError:
        pass
    else:
        raise AssertionError(path)
libc = ctypes.CDLL(None, use_errno=True)
for call in (lambda: libc.unshare(0x10000000), lambda: libc.mount(b"x", b"/tmp", b"tmpfs", 0, None)):
    assert call() == -1 and ctypes.get_errno() == errno.EPERM
assert sorted(os.listdir("/sys/class/net")) == ["lo"]
"""


def test_workload_is_confined(plain: str, directory: Path) -> None:
    command = shlex.join(["python3", "-c", CONFINED])
    target = f"oci:{directory}/confined:v"
    CommandLine(directory).run("convert", "--plain-http", "--record", command, plain, target)
    interfaces = sorted(each.name for each in Path("/sys/class/net").iterdir())
    network = CONFINED.replace('== ["lo"]', f"== {interfaces}")
    command = shlex.join(["python3", "-c", network])
    CommandLine(directory).run("convert", "--plain-http", "--record-network", "--record", command, plain, target)


def test_workload_is_recorded_where_user_namespaces_are_forbidden(plain: str, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    command_line = CommandLine(directory)
    command_line.environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    host = CONFINED.replace('[str(0x6fff0000), "65536"]', '["0", "4294967295"]')
    command = shlex.join(["python3", "-c", host])
    done = command_line.run("convert", "--plain-http", "--record", command, plain, f"oci:{directory}/host-user:v")
    assert b"without a user namespace" in done.stderr


def test_workload_that_fails_is_told(plain: str, directory: Path) -> None:
    for command, said in (("python3 -c 1/0", b"ZeroDivision"), ("nowhere", b"nowhere")):
        target = f"oci:{directory}/image:v"
        done = CommandLine(directory).run("convert", "--plain-http", "--record", command, plain, target, check=False)
        assert done.returncode == 1
        assert said in done.stderr
    assert not (directory / "image/index.json").exists()
    assert "lazylayer-record" not in Path("/proc/self/mounts").read_text()
