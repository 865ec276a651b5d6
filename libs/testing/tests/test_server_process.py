"""A server that starts, one that does not, and one whose parent is gone."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lazylayer_testing.servers.process import (
    ServerError,
    ServerProcess,
    accepts_connections,
    free_port,
    run,
    wait_until,
)

_SERVE = """
import http.server, sys
print("serving", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.BaseHTTPRequestHandler).serve_forever()
"""


def _server(port: int, log: Path, script: str = _SERVE, start_seconds: float = 30) -> ServerProcess:
    return ServerProcess(
        [sys.executable, "-c", script, str(port)],
        log=log,
        ready=lambda: accepts_connections(port),
        start_seconds=start_seconds,
    )


def test_starts_stops_and_starts_again(tmp_path: Path) -> None:
    port = free_port()
    server = _server(port, tmp_path / "log")
    for end in (server.stop, server.kill):
        server.start()
        assert server.running
        assert accepts_connections(port)
        with pytest.raises(ServerError, match="already running"):
            server.start()
        end()
        assert not server.running
        assert not accepts_connections(port)
        end()
    assert (tmp_path / "log").read_text().count("serving") == 2


def test_says_why_a_server_ended(tmp_path: Path) -> None:
    server = _server(free_port(), tmp_path / "log", "raise SystemExit('no such setting: colour')")
    with pytest.raises(ServerError, match=r"ended with exit code 1\nno such setting: colour"):
        server.start()
    assert not server.running


def test_gives_up_on_a_server_that_never_answers(tmp_path: Path) -> None:
    script = "import time; print('thinking', flush=True); time.sleep(600)"
    server = _server(free_port(), tmp_path / "log", script, start_seconds=1)
    with pytest.raises(ServerError, match=r"not within 1 s\nthinking"):
        server.start()
    assert not server.running


def test_says_what_a_failed_command_printed() -> None:
    with pytest.raises(ServerError, match=r"exit code 3\nto standard error"):
        run(["sh", "-c", "echo to standard error >&2; exit 3"])
    with pytest.raises(ServerError, match=r"not finished within 0\.1 s"):
        run(["sleep", "60"], seconds=0.1)
    with pytest.raises(ServerError, match="no-such-program is not installed"):
        run(["no-such-program"])


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from lazylayer_testing.servers.process import ServerProcess
server = ServerProcess(["sleep", "600"], log=Path({str(tmp_path / "log")!r}), ready=lambda: True)
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        # Ready at once, so it may not yet have become the program that it is to run.
        wait_until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the server runs")
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not _alive(pid), "the server ends", 10)


def _alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
