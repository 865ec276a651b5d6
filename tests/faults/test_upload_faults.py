"""An upload that is cut off is taken up again, or it ends as an error, and the tag stays what it was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.command_line import CommandLine
from lazylayer_testing.registry import Fault, ScriptedRegistry
from lazylayer_testing.servers.docker_registry import DockerRegistry

REPOSITORY = "team/app"
SIZE = 40_000_000
CHUNK = 16 * 1024 * 1024


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as registry:
        yield registry


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    settings = {"cache.chunks": "cache_memory", "cache.ranges": "cache_memory"}
    return CommandLine(tmp_path, **settings, **{"plugin.resolver_registry.attempts": "2"})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Forty megabytes that cannot be compressed: three chunks of an upload."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(random.Random(5).randbytes(SIZE))
    return tree


def convert(command_line: CommandLine, tree: Path, reference: str) -> subprocess.CompletedProcess[bytes]:
    return command_line.run("convert", "--plain-http", "--level", "1", f"dir:{tree}", reference, check=False)


def test_upload_goes_on_where_it_was_cut_off(registry: ScriptedRegistry, command_line: CommandLine, tree: Path) -> None:
    registry.script(Fault(reset_after=-1), method="PATCH", path="*/uploads/*", skip=1)
    done = convert(command_line, tree, registry.reference(REPOSITORY, "new"))
    assert done.returncode == 0, done.stderr
    sent = sum(int(each.headers["content-length"]) for each in registry.requests if each.method == "PATCH")
    assert sent <= SIZE + 2 * CHUNK
    command_line.run("verify", "--plain-http", registry.reference(REPOSITORY, "new"))


@pytest.mark.parametrize(
    ("method", "path", "fault"),
    [
        ("POST", "*/uploads/*", Fault(status=500)),
        ("PATCH", "*/uploads/*", Fault(reset_after=-1)),
        ("PATCH", "*/uploads/*", Fault(status=413, message="too large")),
        ("PUT", "*/uploads/*", Fault(status=400, message="digest invalid")),
        ("PUT", "*/manifests/*", Fault(status=403, message="denied")),
    ],
)
def test_upload_that_fails_leaves_the_tag_alone(
    registry: ScriptedRegistry, command_line: CommandLine, tree: Path, method: str, path: str, fault: Fault
) -> None:
    reference = registry.reference(REPOSITORY, "stable")
    small = tree.parent / "small"
    small.mkdir()
    (small / "old").write_bytes(b"old")
    assert convert(command_line, small, reference).returncode == 0
    before = registry.content.manifest(REPOSITORY, "stable")
    registry.script(fault, method=method, path=path, times=None)
    for name in ("stable", "fresh"):
        done = convert(command_line, tree, registry.reference(REPOSITORY, name))
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(b"lazylayer: error: "), done.stderr
        assert b"Traceback" not in done.stderr
    assert registry.content.manifest(REPOSITORY, "stable") == before
    assert registry.content.manifest(REPOSITORY, "fresh") is None


@pytest.mark.servers
@pytest.mark.parametrize("comes_back", [False, True])
def test_registry_that_dies_in_the_middle(tmp_path: Path, tree: Path, comes_back: bool) -> None:
    """A real registry is killed while it receives a layer; with luck it comes back, and keeps what it had."""
    attempts = "8" if comes_back else "2"
    command_line = CommandLine(tmp_path, **{"plugin.resolver_registry.attempts": attempts})
    with DockerRegistry(tmp_path / "registry") as registry:
        reference = f"{registry.host}/{REPOSITORY}:new"
        words = ["convert", "--plain-http", "--level", "1", f"dir:{tree}", reference]
        with subprocess.Popen(command_line.command(*words), stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            while process.poll() is None and not received(tmp_path / "registry"):
                time.sleep(0.001)
            assert process.poll() is None, "nothing was sent before it ended"
            # It holds still while the registry is killed, so that the upload is not over by then.
            os.kill(process.pid, signal.SIGSTOP)
            registry.kill()
            os.kill(process.pid, signal.SIGCONT)
            if comes_back:
                registry.start()
            said = process.stderr.read()
        if not comes_back:
            assert (process.returncode, b"lazylayer: error: " in said) == (1, True)
            registry.start()
            assert command_line.run("verify", "--plain-http", reference, check=False).returncode == 1
            command_line.run(*words)
        assert process.returncode == (0 if comes_back else 1), said
        command_line.run("verify", "--plain-http", reference)


def received(directory: Path) -> bool:
    """Whether a registry has bytes of an upload by now."""
    return any(path.stat().st_size for path in directory.rglob("_uploads/*/data"))
