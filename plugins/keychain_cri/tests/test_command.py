"""`lazylayer cri-proxy` as a process: its socket, its end, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

from lazylayer_testing.servers.process import wait_until

from .image_service import IMAGE_ID, ImageService, image_request, pull_request
from .node import SECRET, Node


class TestCommand:
    def start(self, node: Node, **environment: str) -> subprocess.Popen[str]:
        table = "plugin.keychain_cri"
        command = [sys.executable, "-m", "lazylayer", "--set", f"root={node.directory / 'root'}"]
        command += ["--set", f"{table}.listen={node.listen}", "--set", f"{table}.backend={node.backend_socket}"]
        return subprocess.Popen(
            [*command, "cri-proxy"], stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )

    def end(self, process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
        process.send_signal(number)
        return process.communicate(timeout=60)[1]

    def test_remembers_beyond_a_restart(self, bare_node: Node, backend: ImageService) -> None:
        first = self.start(bare_node)
        bare_node.call("PullImage", pull_request(username="ann", password=SECRET))
        assert stat.S_IMODE(bare_node.listen.stat().st_mode) == 0o600
        limits = Path(f"/proc/{first.pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if "core file" in line] == [["0", "0"]]
        assert SECRET not in Path(f"/proc/{first.pid}/cmdline").read_text()
        said = self.end(first, signal.SIGKILL)
        second = self.start(bare_node)
        try:
            assert bare_node.password() == SECRET
            # A call on the connection to the first proxy fails, if its end was not noticed yet.
            wait_until(bare_node.answers, "the second proxy answers")
            bare_node.call("RemoveImage", image_request(IMAGE_ID))
            assert bare_node.password() == ""
        finally:
            said += self.end(second)
        assert second.returncode == 0
        assert not bare_node.listen.exists()
        assert SECRET not in said

    def test_tells_systemd_when_it_serves(self, bare_node: Node, backend: ImageService) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            address = bare_node.directory / "notify"
            systemd.bind(str(address))
            systemd.settimeout(60)
            process = self.start(bare_node, NOTIFY_SOCKET=str(address))
            try:
                assert systemd.recv(100) == b"READY=1"
                bare_node.call("ListImages")
            finally:
                self.end(process)

    def test_second_proxy_does_not_take_the_socket(self, bare_node: Node, backend: ImageService) -> None:
        first = self.start(bare_node)
        try:
            bare_node.call("ListImages")
            second = self.start(bare_node)
            said = second.communicate(timeout=60)[1]
            assert second.returncode == 1
            assert "another proxy serves it" in said
            bare_node.call("ListImages")
        finally:
            self.end(first, signal.SIGINT)

    def test_file_in_the_way_is_left_alone(self, bare_node: Node) -> None:
        bare_node.listen.write_text("precious")
        process = self.start(bare_node)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 1
        assert "exists and is not a socket" in said
        assert bare_node.listen.read_text() == "precious"

    def test_needs_a_socket(self) -> None:
        command = [sys.executable, "-m", "lazylayer", "cri-proxy"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 78
        assert "names no socket; set listen" in done.stderr
