"""Debian's containerd, private to one directory, with `ctr` and `ctr-remote` talking to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from lazylayer_testing.servers.process import Server, ServerError, ServerProcess, run, wait_until

# containerd 1.6 and 1.7 read version 2 as their own, and 2.x translates it.
_CONFIGURATION_VERSION = 2
_CRI = "io.containerd.grpc.v1.cri"
# The names under which containerd 2.x holds the parts of the CRI plugin.
_CRI_PARTS = ("io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime")


class Containerd(Server):
    """A containerd with its own root, state and socket below `directory`.

    `snapshotters` maps names to the sockets of snapshotters of other processes (`proxy_plugins`).
    With `cri` the CRI plugin runs too, pulling and running with `cri_snapshotter`. `registry_hosts`
    is a directory of `hosts.toml` files (its `config_path`) for the CRI plugin.

    A context manager: it runs inside the `with` block. `stop()` or `kill()` and then `start()` bring
    it back with the same content; containers outlive `kill()`, as they outlive a crash of containerd,
    and nothing outlives `stop()`.

    Socket paths are bounded (107 bytes), so `directory` must be a short path.
    """

    def __init__(
        self,
        directory: Path,
        *,
        snapshotters: Mapping[str, Path] | None = None,
        cri: bool = False,
        cri_snapshotter: str = "overlayfs",
        registry_hosts: Path | None = None,
    ) -> None:
        self.directory = directory
        self.address = directory / "containerd.sock"
        self.root = directory / "root"
        self.state = directory / "state"
        configuration = directory / "config.toml"
        self.process = ServerProcess(
            ["containerd", "--config", configuration],
            log=directory / "containerd.log",
            ready=self._answers,
        )
        directory.mkdir(parents=True, exist_ok=True)
        configuration.write_text(
            "\n".join(self._configuration(snapshotters or {}, cri, cri_snapshotter, registry_hosts)) + "\n"
        )

    def stop(self) -> None:
        """End the containers, their shims and containerd, and unmount what they mounted."""
        with contextlib.suppress(ServerError):
            # Only containerd deletes a container wholly, its control group and its pipes included.
            if not self.running and self._shims():
                self.start()
            if self.running:
                self._delete_tasks()
        self.process.stop()
        for shim in self._shims():
            _kill_with_descendants(shim)
        self._unmount_all()

    def ctr(self, *arguments: str | Path, namespace: str = "default", seconds: float = 300.0) -> str:
        """Run `ctr` with these arguments on this containerd and return what it printed.

        Raises ServerError, with its outputs, when it fails or takes longer than `seconds`.
        """
        return self._run_client("ctr", *arguments, namespace=namespace, seconds=seconds)

    def ctr_remote(self, *arguments: str | Path, namespace: str = "default", seconds: float = 300.0) -> str:
        """Run `ctr-remote`, the Go converter and remote client, likewise."""
        return self._run_client("ctr-remote", *arguments, namespace=namespace, seconds=seconds)

    def _run_client(self, program: str, *arguments: str | Path, namespace: str, seconds: float) -> str:
        return run([program, "--address", self.address, "--namespace", namespace, *arguments], seconds=seconds)

    def _configuration(
        self, snapshotters: Mapping[str, Path], cri: bool, cri_snapshotter: str, registry_hosts: Path | None
    ) -> Iterator[str]:
        # A JSON string or list of strings is a TOML one, too.
        yield f"version = {_CONFIGURATION_VERSION}"
        yield f"root = {json.dumps(str(self.root))}"
        yield f"state = {json.dumps(str(self.state))}"
        if not cri:
            yield f"disabled_plugins = {json.dumps([_CRI, *_CRI_PARTS])}"
        yield "[grpc]"
        yield f"address = {json.dumps(str(self.address))}"
        yield '[plugins."io.containerd.internal.v1.opt"]'
        yield f"path = {json.dumps(str(self.directory / 'opt'))}"
        yield '[plugins."io.containerd.nri.v1.nri"]'
        yield "disable = true"
        if cri:
            yield f'[plugins."{_CRI}".containerd]'
            yield f"snapshotter = {json.dumps(cri_snapshotter)}"
            yield "disable_snapshot_annotations = false"
            if registry_hosts is not None:
                yield f'[plugins."{_CRI}".registry]'
                yield f"config_path = {json.dumps(str(registry_hosts))}"
        for name, socket in snapshotters.items():
            yield f"[proxy_plugins.{json.dumps(name)}]"
            yield 'type = "snapshot"'
            yield f"address = {json.dumps(str(socket))}"

    def _answers(self) -> bool:
        try:
            self._run_client("ctr", "version", namespace="default", seconds=5)
        except ServerError:
            return False
        return True

    def _delete_tasks(self) -> None:
        for namespace in self.ctr("namespaces", "list", "--quiet", seconds=20).split():
            for task in self.ctr("tasks", "list", "--quiet", namespace=namespace, seconds=20).split():
                with contextlib.suppress(ServerError):
                    self.ctr("tasks", "delete", "--force", task, namespace=namespace, seconds=20)

    def _shims(self) -> list[int]:
        """Return the process ids of the shims that were started for this containerd's socket."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"containerd-shim" in words[0] and os.fsencode(self.address) in words:
                found.append(int(process.name))
        return found

    def _unmount_all(self) -> None:
        prefix = os.fsencode(self.directory.resolve()) + b"/"
        # Later mounts first: they may lie on earlier ones.
        for line in reversed(Path("/proc/self/mountinfo").read_bytes().splitlines()):
            target = line.split(b" ")[4].decode("unicode_escape").encode("latin-1")
            if target.startswith(prefix):
                subprocess.run(["umount", "--lazy", target], check=True)


def _kill_with_descendants(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(pid, signal.SIGKILL)
        for child in children:
            _kill_with_descendants(int(child))
        wait_until(lambda: not Path(f"/proc/{pid}/exe").exists(), f"process {pid} is gone")
