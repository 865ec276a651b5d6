"""SIGTERM and Ctrl-C end lazylayer soon, and whole, whatever a registry does at that moment."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from e2e.command_line import CommandLine
from lazylayer.api.oci import parse_reference, sha256_digest
from lazylayer.program import Program
from lazylayer_building import BuildOptions
from lazylayer_snapshotter_containerd.api import snapshots
from lazylayer_snapshotter_containerd.labels import layer_source_labels
from lazylayer_testing.registry import Fault, ImageLayer, ScriptedRegistry
from lazylayer_testing.servers.process import wait_until
from lazylayer_tool_images.building import build_layer
from servers.lazylayer_daemon import LazylayerDaemon

SECONDS = 5.0
NAME = "tests/slow"
CHUNK = 100_000
DRIP, SILENCE = Fault(drip=(1, 0.2)), Fault(delay=120)


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> ImageLayer:
    directory = tmp_path_factory.mktemp("builder")
    archive, built = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as members:
        for number in range(30):
            member = tarfile.TarInfo(f"file-{number}")
            member.size = CHUNK
            members.addfile(member, io.BytesIO(random.Random(number).randbytes(CHUNK)))
    archive.seek(0)
    with Program.load(overrides=[f"root={directory}/root", f"run={directory}/run"]) as builder:
        made = build_layer(builder.hooks, "estargz", archive, built, BuildOptions(chunk_size=CHUNK))
    return ImageLayer(built.getvalue(), made.descriptor.media_type, made.descriptor.annotations, made.diff_id)


@pytest.fixture
def registry(layer: ImageLayer) -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as registry:
        registry.content.add_image(NAME, "latest", [layer])
        yield registry


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, **{"background.silence": "0.1", "prefetch.enabled": "false"})


def mount(command_line: CommandLine, registry: ScriptedRegistry, frontend: str = "auto") -> subprocess.Popen[bytes]:
    mountpoint = command_line.directory / "mount"
    mountpoint.mkdir()
    options = ["--foreground", "--plain-http", "--frontend", frontend]
    command = command_line.command("mount", *options, registry.reference(NAME), mountpoint)
    with (command_line.directory / "log").open("wb") as log:
        return subprocess.Popen(command, stderr=log)


def assert_ends(process: subprocess.Popen[bytes], directory: Path, number: int = signal.SIGTERM) -> None:
    started = time.monotonic()
    process.send_signal(number)
    try:
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        log = (directory / "log").read_text()
    assert time.monotonic() - started <= SECONDS, log
    assert "Traceback" not in log


@pytest.mark.parametrize("fault", [DRIP, SILENCE], ids=["dripping", "silent"])
@pytest.mark.parametrize("path", ["*/manifests/*", "*/blobs/*"])
def test_while_an_image_is_resolved(
    command_line: CommandLine, registry: ScriptedRegistry, fault: Fault, path: str
) -> None:
    registry.script(fault, path=path, times=None)
    process = mount(command_line, registry)
    wait_until(lambda: any(path[2:-2] in each.path for each in registry.requests), "the registry is asked", 30)
    time.sleep(0.5)
    assert_ends(process, command_line.directory)


def run_until_asked(
    command_line: CommandLine, registry: ScriptedRegistry, *arguments: str | Path
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, and return once it has asked the registry."""
    with (command_line.directory / "log").open("wb") as log:
        process = subprocess.Popen(command_line.command(*arguments), stderr=log, stdout=log, start_new_session=True)
    wait_until(lambda: bool(registry.requests), "the registry is asked", 30)
    time.sleep(0.3)
    return process


def session(number: int) -> set[int]:
    """Return the processes in the session of this number, and those that a detached child of it made."""
    found = set()
    for directory in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            fields = (directory / "stat").read_text().rpartition(") ")[2].split()
            if fields[0] not in "ZX" and number in (int(fields[1]), int(fields[3])):
                found.add(int(directory.name))
    return found


@pytest.mark.parametrize(
    ("command", "path"),
    [("ls", "*/manifests/*"), ("cat", "*/blobs/*"), ("verify", "*/blobs/*"), ("convert", "*/blobs/*")],
)
def test_ctrl_c_ends_a_command(command_line: CommandLine, registry: ScriptedRegistry, command: str, path: str) -> None:
    registry.script(SILENCE, path=path, times=None)
    reference = registry.reference(NAME)
    more = {"cat": ["file-17"], "convert": [f"oci:{command_line.directory}/converted"]}
    process = run_until_asked(command_line, registry, command, "--plain-http", reference, *more.get(command, []))
    assert_ends(process, command_line.directory, signal.SIGINT)
    assert process.returncode == 130
    assert (command_line.directory / "log").read_text().strip() == ""


def test_ctrl_c_ends_a_conversion_at_work(command_line: CommandLine, registry: ScriptedRegistry) -> None:
    registry.script(Fault(drip=(20_000, 0.2)), path="*/blobs/*", times=None)
    destination = f"oci:{command_line.directory}/converted"
    process = run_until_asked(command_line, registry, "convert", "--plain-http", registry.reference(NAME), destination)
    assert_ends(process, command_line.directory, signal.SIGINT)
    assert process.returncode == 130
    assert list((command_line.directory / "converted").rglob("sha256:*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_mount_that_is_interrupted(
    command_line: CommandLine, registry: ScriptedRegistry, number: int
) -> None:
    """The process that would serve the mount ends too; it neither prints later nor mounts."""
    registry.script(SILENCE, path="*/blobs/*", times=None)
    mountpoint = command_line.directory / "mount"
    mountpoint.mkdir()
    process = run_until_asked(command_line, registry, "mount", "--plain-http", registry.reference(NAME), mountpoint)
    children = session(process.pid) - {process.pid}
    assert children
    assert_ends(process, command_line.directory, number)
    wait_until(lambda: not any(Path(f"/proc/{child}/exe").exists() for child in children), "its child has ended", 10)
    assert not os.path.ismount(mountpoint)
    assert (command_line.directory / "log").read_text().strip() == ""
    assert command_line.run("status").stdout == b"nothing is mounted\n"


@pytest.mark.fuse
@pytest.mark.parametrize("frontend", ["frontend_fuse", "frontend_erofs"])
@pytest.mark.parametrize("fault", [DRIP, SILENCE], ids=["dripping", "silent"])
def test_while_readers_and_the_background_wait(
    as_root: None, command_line: CommandLine, registry: ScriptedRegistry, fault: Fault, frontend: str
) -> None:
    process = mount(command_line, registry, frontend)
    mountpoint = command_line.directory / "mount"
    wait_until(lambda: os.path.ismount(mountpoint) or process.poll() is not None, "it is mounted", 30)
    if process.poll() is not None:
        pytest.skip(f"{frontend} does not work here: {(command_line.directory / 'log').read_text()}")
    registry.script(fault, path="*/blobs/*", times=None)
    registry.forget_requests()

    def read() -> None:
        with suppress(OSError):
            (mountpoint / "file-17").read_bytes()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    wait_until(lambda: bool(registry.requests), "the registry is asked", 30)
    time.sleep(0.5)
    assert_ends(process, command_line.directory)
    subprocess.run(command_line.command("umount", "--force", mountpoint), check=False, capture_output=True)
    reader.join(30)
    assert not reader.is_alive()


@pytest.mark.fuse
@pytest.mark.parametrize("fault", [DRIP, SILENCE], ids=["dripping", "silent"])
@pytest.mark.parametrize("path", ["*/blobs/*", "*"])
def test_the_daemon_while_it_prepares_a_snapshot(
    as_root: None, server_directory: Path, registry: ScriptedRegistry, layer: ImageLayer, fault: Fault, path: str
) -> None:
    directory = server_directory / f"end-{len(list(server_directory.iterdir()))}"
    digest = sha256_digest(layer.data)
    labels = {
        **layer_source_labels(parse_reference(registry.reference(NAME)), digest, [digest]),
        "containerd.io/snapshot.ref": "target",
    }
    with LazylayerDaemon(directory, plain_http=[registry.host]) as daemon:
        registry.script(fault, path=path, times=None)
        channel = grpc.insecure_channel(f"unix:{daemon.address}")
        prepare: Any = channel.unary_unary(
            f"/{snapshots.SERVICE}/Prepare",
            request_serializer=lambda message: message.encode(),
            response_deserializer=snapshots.MountsResponse.decode,
        )
        answer = prepare.future(snapshots.PrepareSnapshotRequest("test", "key", "", labels))
        wait_until(lambda: bool(registry.requests), "the registry is asked", 30)
        time.sleep(0.5)
        started = time.monotonic()
        daemon.end(signal.SIGTERM)
        assert time.monotonic() - started <= SECONDS
        wait_until(answer.done, "the call has ended", 10)
        channel.close()
        registry.forget_rules()


STUCK = """
import sys, threading, time
from lazylayer.cli.ending import Ending
with Ending(seconds=0.5) as ending:
    threading.Thread(target=time.sleep, args=(60,), name="stuck").start()
    print("ready", flush=True)
    ending.wait()
"""


def test_threads_that_are_stuck_do_not_delay_the_end() -> None:
    command = [sys.executable, "-c", STUCK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        started = time.monotonic()
        process.terminate()
        assert process.wait(30) == 1
        assert 0.4 < time.monotonic() - started < SECONDS
