"""The service over gRPC, on a stand-in for the filesystem that mounts a directory of samples."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import grpc
import pytest

from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.oci import Digest, parse_reference
from lazylayer.errors import MountError, NotMountedError
from lazylayer.errors import UnavailableError as LayerUnavailableError
from lazylayer_snapshotter_containerd.api import snapshots as api
from lazylayer_snapshotter_containerd.api.types import Empty, FieldMask, Mount
from lazylayer_snapshotter_containerd.labels import layer_source_labels
from lazylayer_snapshotter_containerd.service import make_server
from lazylayer_snapshotter_containerd.snapshotter import Snapshotter
from lazylayer_wire import Message

Answer = TypeVar("Answer", bound=Message)

REF = "containerd.io/snapshot.ref"
REMOTE = "containerd.io/snapshot/remote"
CHECKED = "containerd.io/snapshot/remote/lazylayer.checked"
FALLBACK = "containerd.io/snapshot/remote/lazylayer.fallback"
OURS = {REMOTE: "remote snapshot"}

SAMPLE = "sample"
SAMPLE_CONTENT = "remote\n"


class Labels(NamedTuple):
    """The labels of a format."""

    annotations: frozenset[str]
    toc_digest_labels: frozenset[str]


FORMATS = Labels(frozenset({TOC_DIGEST, "org.example.size"}), frozenset({TOC_DIGEST}))


def layer_labels(name: str, toc: str = "toc", reference: str = "registry.test/a:1") -> dict[str, str]:
    """Return the labels of a layer, named by any text, as a client sets them."""
    digest, toc_digest = (Digest(f"sha256:{hashlib.sha256(each.encode()).hexdigest()}") for each in (name, toc))
    return {**layer_source_labels(parse_reference(reference), digest, [digest]), TOC_DIGEST: toc_digest}


class BindFilesystem:
    """Mounts a directory with one file, another one each time, and fails where a test says so."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._mounts: set[str] = set()
        self.broken: set[str] = set()
        self._layers: dict[str, str] = {}
        """Digests of layers that can neither be mounted nor checked."""
        self.mounting = threading.Semaphore(0)
        """Released by each mount that began."""
        self.go_on = threading.Event()
        """Mounts wait for it."""
        self.go_on.set()
        self.checked: list[str] = []
        self.waited = False
        """True if a check was to wait for a prefetch."""

    def mount(self, mountpoint: str, labels: Mapping[str, str], *, check: bool = True) -> None:
        if mountpoint in self._mounts:
            raise MountError(f"{mountpoint} is already mounted")
        self._mounts.add(mountpoint)  # as if it were ready: no caller may rely on it
        self.mounting.release()
        assert self.go_on.wait(60)
        self._layers[mountpoint] = labels.get("layer", "")
        if self._layers[mountpoint] in self.broken:
            self._mounts.remove(mountpoint)
            raise LayerUnavailableError(f"layer {labels['layer']} is unavailable")
        subprocess.run(["umount", "--lazy", mountpoint], check=False, capture_output=True)  # what a dead process left
        layer = Path(tempfile.mkdtemp(dir=self._directory))
        (layer / SAMPLE).write_text(SAMPLE_CONTENT)
        subprocess.run(["mount", "--bind", "-o", "ro", layer, mountpoint], check=True)

    def check(self, mountpoint: str, *, wait: bool = True) -> None:
        self.checked.append(mountpoint)
        self.waited |= wait
        self._find(mountpoint)
        if self._layers[mountpoint] in self.broken:
            raise LayerUnavailableError(f"{mountpoint} is broken")

    def unmount(self, mountpoint: str, *, force: bool = False) -> None:
        self._find(mountpoint)
        subprocess.run(["umount", *(["--lazy"] if force else []), mountpoint], check=True)
        self._mounts.remove(mountpoint)

    def remove_left(self, mountpoint: str) -> None:
        if subprocess.run(["umount", mountpoint], check=False, capture_output=True).returncode:
            raise NotMountedError(f"{mountpoint}: nothing is mounted there")

    def disk_usage(self, mountpoint: str) -> int:
        self._find(mountpoint)
        return 4321

    def close(self, *, leave: bool = False) -> None:
        for mountpoint in list(self._mounts):
            self.unmount(mountpoint, force=True)

    def samples(self) -> set[str]:
        """Return the contents of the layers that were ever mounted."""
        return {each.read_text() for each in self._directory.glob(f"*/{SAMPLE}")}

    def forget(self) -> None:
        """Forget all mounts, as if another process had made them."""
        self._mounts.clear()

    def _find(self, mountpoint: str) -> None:
        if mountpoint not in self._mounts:
            raise NotMountedError(f"{mountpoint}: nothing is mounted there")


class Refused(Exception):  # noqa: N818 - what happened, not a failure of ours
    """The service answered with a status."""

    def __init__(self, status: str, details: str) -> None:
        super().__init__(f"{status}: {details}")
        self.status = status
        self.details = details


class Client:
    """containerd's side of the snapshots service."""

    def __init__(self, address: str, name: str = "test") -> None:
        self.channel = grpc.insecure_channel(f"unix:{address}")
        self.name = name

    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> list[Mount]:
        request = api.PrepareSnapshotRequest(self.name, key, parent, dict(labels or {}))
        return self._call("Prepare", request, api.MountsResponse).mounts

    def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> list[Mount]:
        request = api.PrepareSnapshotRequest(self.name, key, parent, dict(labels or {}))
        return self._call("View", request, api.MountsResponse).mounts

    def mounts(self, key: str) -> list[Mount]:
        return self._call("Mounts", api.MountsRequest(self.name, key), api.MountsResponse).mounts

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        self._call("Commit", api.CommitSnapshotRequest(self.name, name, key, dict(labels or {}), parent), Empty)

    def remove(self, key: str) -> None:
        self._call("Remove", api.RemoveSnapshotRequest(self.name, key), Empty)

    def stat(self, key: str) -> api.Info:
        info = self._call("Stat", api.StatSnapshotRequest(self.name, key), api.StatSnapshotResponse).info
        assert info is not None
        return info

    def update(self, info: api.Info, *paths: str) -> api.Info:
        request = api.UpdateSnapshotRequest(self.name, info, FieldMask(list(paths)))
        updated = self._call("Update", request, api.StatSnapshotResponse).info
        assert updated is not None
        return updated

    def list(self, *filters: str) -> dict[str, api.Info]:
        call: Any = self.channel.unary_stream(
            f"/{api.SERVICE}/List",
            request_serializer=lambda message: message.encode(),
            response_deserializer=api.ListSnapshotsResponse.decode,
        )
        with _refusals():
            answers = list(call(api.ListSnapshotsRequest(self.name, list(filters))))
        return {info.name: info for answer in answers for info in answer.info}

    def usage(self, key: str) -> api.UsageResponse:
        return self._call("Usage", api.UsageRequest(self.name, key), api.UsageResponse)

    def cleanup(self) -> None:
        self._call("Cleanup", api.CleanupRequest(self.name), Empty)

    def _call(self, method: str, request: Message, answer: type[Answer]) -> Answer:
        call: Any = self.channel.unary_unary(
            f"/{api.SERVICE}/{method}",
            request_serializer=lambda message: message.encode(),
            response_deserializer=answer.decode,
        )
        with _refusals():
            result: Answer = call(request)
        return result


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise Refused(error.code().name, error.details()) from None


class Service:
    """The snapshotter, its server and a client, all in this process; it can be restarted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.work = directory / "work"
        self.work.mkdir()
        self.filesystem = BindFilesystem(directory / "layer")
        self.start()

    def start(self, *, seconds: float = 30.0, **options: Any) -> None:
        self.snapshotter = Snapshotter(self.root, self.filesystem, FORMATS, **options)
        self.server = make_server(self.snapshotter, 16, seconds)
        self.address = address = str(self.directory / "s")
        self.server.add_insecure_port(f"unix:{address}")
        self.server.start()
        self.client = Client(address)

    def stop(self) -> None:
        self.client.channel.close()
        self.server.stop(None).wait()
        self.snapshotter.close()

    def prepare_target(
        self, target: str, parent: str = "", *, key: str = "", labels: Mapping[str, str] | None = None
    ) -> str:
        """Ask for a target that can be mounted; return its name."""
        wanted = {**layer_labels(target), **(labels or {}), "containerd.io/snapshot.ref": target}
        with pytest.raises(Refused) as refused:
            self.client.prepare(key or f"extract {target}", parent, wanted)
        assert refused.value.status == "ALREADY_EXISTS"
        return target

    def committed(self, name: str, parent: str, change: Callable[[Path], None]) -> str:
        """Commit a snapshot in which `change` was made; return its name."""
        with self.mounted(self.client.prepare(f"{name} preparing", parent)) as root:
            change(root)
        self.client.commit(name, f"{name} preparing")
        return name

    @contextmanager
    def mounted(self, mounts: Sequence[Mount]) -> Iterator[Path]:
        """Mount as containerd does, with long options made short, and yield the directory."""
        (mount,) = mounts
        target = Path(tempfile.mkdtemp(dir=self.work))
        base = f"{self.snapshotter.directories.path}/"
        options = [
            each.replace(base, "") if each.startswith("lowerdir=") else each
            for each in mount.options
            if each not in ("rbind", "rw")
        ]
        kind = ["--rbind"] if mount.type == "bind" else ["-t", mount.type]
        flags = ["-o", ",".join(options)] if options else []
        # Like containerd by mount(2): by fsconfig(2), newer programs' choice, no option is longer than 256 bytes.
        environment = {**os.environ, "LIBMOUNT_FORCE_MOUNT2": "always"}
        subprocess.run(["mount", *kind, *flags, mount.source, target], check=True, cwd=base, env=environment)
        try:
            yield target
        finally:
            subprocess.run(["umount", target], check=True)
            target.rmdir()

    def left_mounted(self) -> list[str]:
        """Return the mountpoints below the root."""
        lines = Path("/proc/self/mounts").read_text().splitlines()
        return [line.split()[1] for line in lines if line.split()[1].startswith(f"{self.root}/")]

    def directory_names(self) -> set[str]:
        return {each.name for each in (self.root / "snapshots").iterdir()}


@pytest.fixture
def service() -> Iterator[Service]:
    """The service with a root of its own, not in memory, its path short enough for a socket."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and owners")
    directory = Path(tempfile.mkdtemp(prefix="lazylayer-", dir="/var/tmp"))
    service = Service(directory)
    yield service
    service.stop()
    service.filesystem.close()
    for mountpoint in reversed(service.left_mounted()):
        subprocess.run(["umount", "--lazy", mountpoint], check=True)
    shutil.rmtree(directory)


@pytest.fixture
def client(service: Service) -> Client:
    return service.client


@pytest.fixture
def refused() -> Callable[[str], contextlib.AbstractContextManager[pytest.ExceptionInfo[Refused]]]:
    """Expects the call inside the block to be refused with a status."""

    @contextmanager
    def expect(status: str) -> Iterator[pytest.ExceptionInfo[Refused]]:
        with pytest.raises(Refused) as caught:
            yield caught
        assert caught.value.status == status

    return expect
