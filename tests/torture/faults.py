"""Reads from a registry that misbehaves, through real mounts: right bytes or EIO, soon, and right bytes afterwards.

Each process mounts one image four times, with each frontend and each cache. The caches are far smaller than the image,
so that nearly every read asks the registry. A case is many reads at once, of all four mounts, while one kind of fault
befalls all requests or some; and reads after it, which must succeed: a fault leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lazylayer.api.oci import parse_reference
from lazylayer.errors import LazylayerError
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.program import Program
from lazylayer_testing.registry import Fault, ScriptedRegistry
from torture.campaign import Campaign
from torture.images import FILE_SIZE, NAMES, build, write_files
from torture.reader import Read, Reader

__all__ = ["Faults"]

_CACHE = 1 << 19
_READERS = 100
"""Reads at the same time, in all mounts."""
_READ_TIMEOUT = 20
_SLACK = 30.0
"""Seconds that a busy machine may take beyond the deadline of a read."""
_REPOSITORY = "torture/image"

Make = Callable[[random.Random], Fault]


def _status(*statuses: int, **headers: str) -> Make:
    return lambda choose: Fault(
        status=choose.choice(statuses), headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def _flip(body: bytes, choose: random.Random) -> bytes:
    """Invert one bit of a body."""
    at = choose.randrange(len(body) or 1)
    return body[:at] + bytes(each ^ 1 << choose.randrange(8) for each in body[at : at + 1]) + body[at + 1 :]


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
    "flipped": lambda choose: Fault(rewrite=lambda body: _flip(body, choose)),
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
    "stall": lambda choose: Fault(stall_after=choose.randrange(3000), stall_seconds=5.0),
    "drip": lambda choose: Fault(drip=(choose.randrange(200, 3000), 0.002)),
}


class Faults(Campaign):
    """Each kind is a fault; a case is many reads under it, and a few after it."""

    name = "faults"
    unit = "reads"
    counts = 10_000
    per_case = 100
    deadline = 240.0
    address_space = 16 << 30
    memory = 768 << 20
    kinds = (*FAULTS, "opening")

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._registry = ScriptedRegistry()
        self._registry.__enter__()
        self._registry.content.add_image(_REPOSITORY, "latest", [build(write_files(directory / "data"))])
        self._machines: list[_Machine] = []
        self._reader = Reader(_READERS)

    def run(self, kind: str, seed: int) -> str:
        """Read under a fault; return what went wrong."""
        choose = random.Random(f"{kind} {seed}")
        if kind == "opening":
            return self._open(choose)
        if not self._machines:
            self._machines = [_Machine(self._registry, self.directory, each) for each in _combinations()]
        share = choose.choice((1.0, 1.0, 0.5, 0.2))
        self._registry.script(
            FAULTS[kind](choose), path="*/blobs/*", when=lambda _: choose.random() < share, times=None
        )
        problem = self._read(choose, self.per_case, kind, (errno.errorcode[errno.EIO],))
        self._registry.forget_rules()
        self._registry.forget_requests()
        return problem or self._read(choose, 2 * len(self._machines), "afterwards", ())

    def _read(self, choose: random.Random, count: int, kind: str, allowed: Sequence[str]) -> str:
        """Read so often, of all machines in turn; return what is neither right nor allowed, nor in time."""
        reads = []
        for number in range(count):
            name, size = choose.choice(NAMES), choose.choice((1, 4096, 60_000))
            file = str(self._machines[number % len(self._machines)].mountpoint / name)
            reads.append(Read(file, str(self.directory / "data" / name), choose.randrange(FILE_SIZE), size))
        for read, seen in zip(reads, self._reader.read(reads), strict=True):
            self.outcomes[f"{kind}: {seen.outcome}"] += 1
            if seen.outcome not in ("right", *allowed):
                return f"{kind}: {read.path} at {read.offset}: {seen.outcome}"
            if seen.seconds > _READ_TIMEOUT + _SLACK:
                return f"{kind}: {read.path} at {read.offset}: {seen.seconds:.1f} s"
        return ""

    def _open(self, choose: random.Random) -> str:
        """Open the image while any of its requests goes wrong, and again when none does."""
        if not self._machines:
            self._machines = [_Machine(self._registry, self.directory, None, number) for number in range(4)]
        fault, share = FAULTS[choose.choice(list(FAULTS))](choose), choose.choice((1.0, 0.5, 0.2))
        self._registry.script(fault, when=lambda _: choose.random() < share, times=None)
        right = (self.directory / "data" / NAMES[0]).read_bytes()[:100]

        def work(machine: _Machine) -> list[str]:
            return [machine.try_to_read(self._registry, right) for _ in range(self.per_case // len(self._machines))]

        with ThreadPoolExecutor(len(self._machines)) as pool:
            seen = [each for outcomes in pool.map(work, self._machines) for each in outcomes]
        self._registry.forget_rules()
        self._registry.forget_requests()
        self.outcomes.update(f"opening: {each}" for each in seen)
        if "wrong" in seen:
            return "wrong bytes"
        afterwards = [each.try_to_read(self._registry, right) for each in self._machines]
        return "" if set(afterwards) == {"right"} else f"afterwards: {afterwards}"

    def close(self) -> None:
        """Unmount, and stop the registry."""
        self._registry.forget_rules()
        self._reader.close()
        for machine in self._machines:
            machine.close()
        self._registry.__exit__(None, None, None)


def _combinations() -> list[tuple[str, str]]:
    return [
        (frontend, cache) for frontend in ("frontend_erofs", "frontend_fuse") for cache in ("cache_dir", "cache_memory")
    ]


class _Machine:
    """A program with its own caches, and the image mounted, if there is a frontend."""

    def __init__(
        self, registry: ScriptedRegistry, directory: Path, how: tuple[str, str] | None, number: int = 0
    ) -> None:
        self.name = "-".join(how or ("opened", str(number)))
        frontend, cache = how or ("auto", "cache_memory")
        home = directory / self.name
        self.mountpoint = home / "mnt"
        self.mountpoint.mkdir(parents=True)
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
                "plugin.resolver_registry.idle_timeout=3",
                "plugin.frontend_erofs.local_images=0",
                "resolve.keep=0",
                f"fetch.read_timeout={_READ_TIMEOUT}",
                "fetch.stall_timeout=10",
                f"fetch.threads={_READERS}",
                "fetch.window_min=1",
                "fetch.window_max=1",
            ]
        )
        self._filesystem = Filesystem(self._program)
        if how is not None:
            self._filesystem.mount_image(str(self.mountpoint), parse_reference(registry.reference(_REPOSITORY)))

    def try_to_read(self, registry: ScriptedRegistry, right: bytes) -> str:
        """Open the image, read the start of a file, and close it; return `right`, `wrong` or `refused`."""
        try:
            image = self._filesystem.open_image(parse_reference(registry.reference(_REPOSITORY)))
            try:
                found = image.find(os.fsencode(NAMES[0]))
                assert found is not None
                return "right" if found.read(0, len(right)) == right else "wrong"
            finally:
                image.close()
        except LazylayerError:
            return "refused"

    def close(self) -> None:
        """Unmount and end the program."""
        self._filesystem.close()
        self._program.close()
