"""Reads from a registry that misbehaves, through real mounts: right bytes or EIO, soon, and right bytes afterwards.

Each process mounts one image four times, with each frontend and each cache. The caches are far smaller than the image,
so that nearly every read asks the registry. A case is one read while one kind of fault befalls the requests, and one
after it, which must succeed: a fault leaves nothing behind.
"""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import lazylayer_format_estargz as estargz
from lazylayer.api.oci import parse_reference
from lazylayer.errors import LazylayerError
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.program import Program
from lazylayer_building import BuildOptions
from lazylayer_testing.registry import Fault, ImageLayer, ScriptedRegistry
from torture.campaign import Campaign
from torture.reader import Reader

__all__ = ["Faults"]

_FILE = "data"
_SIZE = 24 << 20
_CHUNK = 16 << 10
_CACHE = 1 << 20
_REPOSITORY = "torture/image"

Make = Callable[[random.Random], Fault]


def _status(*statuses: int, **headers: str) -> Make:
    return lambda choose: Fault(
        status=choose.choice(statuses), headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


_CONTENT_RANGES: Sequence[str] = (
    "bytes 0-0/1",
    "bytes 5-4/9",
    "bytes */*",
    "bytes 0-99999999999/99999999999",
    "items 1-2/3",
    "",
    "bytes 1-/x",
)
_BODIES: Sequence[bytes] = (
    b"\xff\xfe\x00",
    b'{"errors":' * 2000,
    b"{}",
    b"[]",
    b"null",
    b'{"errors":[{"message":"\x1b[2J password=hunter2"}]}',
    bytes(70_000),
)
_HEADERS: Sequence[tuple[str, str]] = (
    ("Content-Encoding", "gzip"), ("Content-Length", "5"), ("Content-Length", "-1"), ("Transfer-Encoding", "gzip"),
    ("Content-Type", "multipart/byteranges; boundary=x"), ("Content-Type", "\xff"),
    ("Docker-Content-Digest", "sha256:0"),
)  # fmt: skip
_LOCATIONS: Sequence[str] = (
    "http://127.0.0.1:1/x",
    "",
    "/",
    "ftp://x/y",
    "http://[::1",
    "http://169.254.169.254/",
    "//",
    "http://127.0.0.1:9/\x7f",
)

FAULTS: Mapping[str, Make] = {
    "client-error": _status(400, 404, 405, 410, 418),
    "refused": _status(401, 403),
    "too-many": _status(429, Retry_After="0"),
    "server-error": _status(500, 502, 503, 504, 599),
    "odd-status": _status(201, 204, 206, 304, 307, 416),
    "reset-early": lambda choose: Fault(reset_after=-1),
    "reset-midway": lambda choose: Fault(reset_after=choose.randrange(20_000)),
    "cut-short": lambda choose: Fault(truncate_after=choose.randrange(20_000)),
    "flipped": lambda choose: Fault(corrupt_at=choose.randrange(_SIZE)),
    "rewritten": lambda choose: Fault(rewrite=lambda body: choose.randbytes(len(body))),
    "longer": lambda choose: Fault(rewrite=lambda body: body + choose.randbytes(choose.randrange(1, 5000))),
    "shorter": lambda choose: Fault(rewrite=lambda body: body[: choose.randrange(len(body) + 1)]),
    "empty": lambda choose: Fault(rewrite=lambda body: b""),
    "whole-blob": lambda choose: Fault(ignore_range=True),
    "first-range": lambda choose: Fault(first_range_only=True),
    "covering-range": lambda choose: Fault(one_covering_range=True),
    "lying-range": lambda choose: Fault(content_range=choose.choice(_CONTENT_RANGES)),
    "no-length": lambda choose: Fault(without_length=True),
    "odd-body": lambda choose: Fault(body=choose.choice(_BODIES), status=choose.choice((None, 401, 500))),
    "odd-headers": lambda choose: Fault(headers=dict([choose.choice(_HEADERS)])),
    "nowhere": lambda choose: Fault(status=307, headers={"Location": choose.choice(_LOCATIONS)}),
    "stall": lambda choose: Fault(stall_after=choose.randrange(3000), stall_seconds=3.0),
    "drip": lambda choose: Fault(drip=(choose.randrange(200, 3000), 0.002)),
}


class Faults(Campaign):
    """Each kind is a fault; a case is one read under it, and one after it."""

    name = "faults"
    counts = 10_000
    deadline = 60.0
    memory = 12 << 30
    kinds = (*FAULTS, "opening")

    def __init__(self) -> None:
        super().__init__()
        self._directory = Path(tempfile.mkdtemp(prefix="torture-", dir="/var/tmp"))
        self._registry = ScriptedRegistry()
        self._registry.__enter__()
        self._data = random.Random(0).randbytes(_SIZE)
        layer = _build(self._data)
        self._registry.content.add_image(_REPOSITORY, "latest", [layer])
        self._machines: list[_Machine] = []
        self._reader = Reader()

    def run(self, kind: str, seed: int) -> str:
        """Read under a fault; return what went wrong."""
        choose = random.Random(f"{kind} {seed}")
        if kind == "opening":
            return self._open(choose)
        if not self._machines:
            self._machines = [_Machine(self._registry, self._directory, each) for each in _combinations()]
        machine = self._machines[seed % len(self._machines)]
        offset, size = choose.randrange(_SIZE), choose.choice((1, 4096, 60_000))
        wanted = self._data[offset : offset + size]
        self._registry.script(FAULTS[kind](choose), path="*/blobs/*", times=choose.choice((1, 2, 3, None)))
        problem = self._read(machine, offset, size, wanted, kind)
        self._registry.forget_rules()
        self._registry.forget_requests()
        if problem:
            return f"{machine.name}: under the fault: {problem}"
        try:
            got = self._reader.read(machine.file, offset, size)
        except OSError as error:
            return f"{machine.name}: afterwards: {errno.errorcode.get(error.errno or 0, error)}"
        return "" if got == wanted else f"{machine.name}: afterwards: wrong bytes"

    def _read(self, machine: _Machine, offset: int, size: int, wanted: bytes, kind: str) -> str:
        try:
            got = self._reader.read(machine.file, offset, size)
        except OSError as error:
            self.rare[f"{kind}: EIO"] += 1
            return "" if error.errno == errno.EIO else f"{error}"
        self.rare[f"{kind}: read"] += 1
        return "" if got == wanted else "wrong bytes"

    def _open(self, choose: random.Random) -> str:
        """Open the image while any of its requests goes wrong, and again when none does."""
        if not self._machines:
            self._machines = [_Machine(self._registry, self._directory, None)]
        machine = self._machines[0]
        fault = FAULTS[choose.choice(list(FAULTS))](choose)
        self._registry.script(fault, skip=choose.randrange(3), times=choose.choice((1, 2, None)))
        try:
            machine.read_file(self._registry)
            self.rare["opening: opened"] += 1
        except LazylayerError:
            self.rare["opening: refused"] += 1
        finally:
            self._registry.forget_rules()
            self._registry.forget_requests()
        return "" if machine.read_file(self._registry) == self._data[:100] else "afterwards: wrong bytes"

    def close(self) -> None:
        """Unmount, and stop the registry."""
        self._registry.forget_rules()
        self._reader.close()
        for machine in self._machines:
            machine.close()
        self._registry.__exit__(None, None, None)
        shutil.rmtree(self._directory, ignore_errors=True)


def _combinations() -> list[tuple[str, str]]:
    return [
        (frontend, cache) for frontend in ("frontend_erofs", "frontend_fuse") for cache in ("cache_dir", "cache_memory")
    ]


def _build(data: bytes) -> ImageLayer:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as members:
        info = tarfile.TarInfo(_FILE)
        info.size = len(data)
        members.addfile(info, io.BytesIO(data))
    archive.seek(0)
    layer = io.BytesIO()
    built = estargz.lazylayer_build_layer("estargz", archive, layer, BuildOptions(chunk_size=_CHUNK, level=1))
    return ImageLayer(layer.getvalue(), annotations=built.descriptor.annotations, diff_id=built.diff_id)


class _Machine:
    """A program with its own caches, and the image mounted, if there is a frontend."""

    def __init__(self, registry: ScriptedRegistry, directory: Path, how: tuple[str, str] | None) -> None:
        self.name = "-".join(how or ("opened",))
        frontend, cache = how or ("auto", "cache_memory")
        home = directory / self.name
        self.mountpoint = home / "mnt"
        self.mountpoint.mkdir(parents=True)
        self.file = self.mountpoint / _FILE
        self._program = Program.load(
            overrides=[
                f"root={home}/root",
                f"run={home}/run",
                "log.level=ERROR",
                f'resolve.plain_http=["{registry.host}"]',
                f"mount.frontend={frontend}",
                f"cache.chunks={cache}",
                f"cache.ranges={cache}",
                f"plugin.{cache}.max_bytes={_CACHE}",
                "background.enabled=false",
                "prefetch.enabled=false",
                "plugin.resolver_registry.attempts=2",
                "plugin.resolver_registry.idle_timeout=1",
                "plugin.frontend_erofs.local_images=0",
                "resolve.keep=0",
                "fetch.window_min=1",
                "fetch.window_max=1",
            ]
        )
        self._filesystem = Filesystem(self._program)
        if how is not None:
            self._filesystem.mount_image(str(self.mountpoint), parse_reference(registry.reference(_REPOSITORY)))

    def read_file(self, registry: ScriptedRegistry) -> bytes:
        """Open the image, read the start of its file, and close it."""
        image = self._filesystem.open_image(parse_reference(registry.reference(_REPOSITORY)))
        try:
            found = image.find(os.fsencode(_FILE))
            assert found is not None
            return found.read(0, 100)
        finally:
            image.close()

    def close(self) -> None:
        """Unmount and end the program."""
        self._filesystem.close()
        self._program.close()
