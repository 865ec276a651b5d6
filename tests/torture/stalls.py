"""64 readers beside a registry that stalls forever, and a healthy registry in the same process.

A case measures cold reads from the healthy registry alone, then beside the readers; each of these must get EIO within
the read deadline. Then SIGTERM ends the process while such readers wait.
"""

from __future__ import annotations

import random
import signal
import statistics
import threading
import time
from pathlib import Path

from lazylayer_testing.registry import Fault, Gate, ScriptedRegistry
from torture.campaign import Campaign
from torture.images import FILE_SIZE, NAMES, build, write_files
from torture.nursery import Nursery
from torture.reader import Read, Reader, Seen

__all__ = ["Stalls"]

_READERS = 64
_SAMPLES = 60
_STALL_TIMEOUT = 4
_READ_TIMEOUT = 8
_SLACK = 10.0
_END = 5.0
_MOUNTED = 60.0


class Stalls(Campaign):
    """Each kind is a frontend; a case is one process, with 64 readers twice."""

    name = "stalls"
    unit = "stalled reads"
    counts = 10 * 2 * _READERS
    per_case = 2 * _READERS
    deadline = 240.0
    address_space = 64 << 30
    kinds = ("frontend_erofs", "frontend_fuse")

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._registries = [ScriptedRegistry(), ScriptedRegistry()]
        self._right = directory / "data"
        layer = build(write_files(self._right))
        for each in self._registries:
            each.__enter__()
            each.content.add_image("torture/image", "latest", [layer])
        self._nursery = Nursery(directory)
        self._stalled, self._healthy = Reader(_READERS), Reader(1)
        self._gate = Gate()

    def run(self, kind: str, seed: int) -> str:
        """Read beside a stalled registry, and end the process in the middle of it."""
        choose = random.Random(f"{kind} {seed}")
        home = self.directory / f"home-{kind}-{seed}"
        places = [home / "stalled", home / "healthy"]
        for each in places:
            each.mkdir(parents=True)
        images = [each.reference("torture/image") for each in self._registries]
        process = self._nursery.start(self._settings(home, kind), *zip(images, places, strict=True))
        if problem := process.wait(_MOUNTED):
            return problem
        try:
            alone = self._read(self._healthy, places[1], choose, _SAMPLES)
            self._gate = Gate()
            self._registries[0].script(Fault(hold=self._gate), path="*/blobs/*", times=None)
            waiting = self._begin(places[0], choose)
            beside = self._read(self._healthy, places[1], choose, _SAMPLES)
            problem = waiting.problem() or self._compare(kind, alone, beside)
            if problem:
                return problem
            waiting = self._begin(places[0], choose)
            started = time.monotonic()
            ended = process.end(signal.SIGTERM, _END + _SLACK)
            seconds = time.monotonic() - started
            self.peak = max(self.peak, process.peak())
            if not ended or seconds > _END:
                return f"SIGTERM ended the process after {seconds:.1f} s"
            self.outcomes[f"{kind}: SIGTERM ended it within {max(round(seconds), 1)} s"] += 1
            return waiting.problem()
        finally:
            self._gate.release()
            self._registries[0].forget_rules()
            process.end(signal.SIGKILL)

    def _begin(self, place: Path, choose: random.Random) -> _Waiting:
        """Start 64 readers of the stalled registry, and return once it holds a request of theirs."""
        waiting = _Waiting(self._stalled, self._reads(place, choose, _READERS))
        self._gate.wait_for(1, _MOUNTED)
        return waiting

    def _read(self, reader: Reader, place: Path, choose: random.Random, count: int) -> list[Seen]:
        return reader.read(self._reads(place, choose, count))

    def _reads(self, place: Path, choose: random.Random, count: int) -> list[Read]:
        names = [choose.choice(NAMES) for _ in range(count)]
        return [Read(f"{place}/{name}", f"{self._right}/{name}", choose.randrange(FILE_SIZE), 1) for name in names]

    def _compare(self, kind: str, alone: list[Seen], beside: list[Seen]) -> str:
        if wrong := {each.outcome for each in (*alone, *beside)} - {"right"}:
            return f"reads from the healthy registry: {wrong}"
        before, after = (statistics.median(each.seconds for each in seen) for seen in (alone, beside))
        self.outcomes[f"{kind}: a healthy read takes {after / before:.1f} times as long"] += 1
        longest = max(each.seconds for each in beside)
        return f"a healthy read took {longest:.1f} s" if longest > _STALL_TIMEOUT else ""

    def _settings(self, home: Path, frontend: str) -> list[str]:
        hosts = ", ".join(f'"{each.host}"' for each in self._registries)
        return [
            f"root={home}/root",
            f"run={home}/run",
            "log.level=ERROR",
            f"resolve.plain_http=[{hosts}]",
            f"mount.frontend={frontend}",
            "background.enabled=false",
            "prefetch.enabled=false",
            "cache.chunks=cache_memory",
            "cache.ranges=cache_memory",
            f"plugin.cache_memory.max_bytes={FILE_SIZE}",
            "plugin.frontend_erofs.local_images=0",
            "plugin.frontend_erofs.keeper=off",
            "fetch.window_min=1",
            "fetch.window_max=1",
            f"fetch.stall_timeout={_STALL_TIMEOUT}",
            f"fetch.read_timeout={_READ_TIMEOUT}",
        ]

    def close(self) -> None:
        """End what it started."""
        self._gate.release()
        self._stalled.close()
        self._healthy.close()
        self._nursery.close()
        for each in self._registries:
            each.__exit__(None, None, None)


class _Waiting:
    """Reads under way in another thread."""

    def __init__(self, reader: Reader, reads: list[Read]) -> None:
        self._seen: list[Seen] = []
        self._thread = threading.Thread(target=lambda: self._seen.extend(reader.read(reads)), daemon=True)
        self._thread.start()

    def problem(self) -> str:
        """Wait until all have ended; return what was not an error in time."""
        self._thread.join(_READ_TIMEOUT + _SLACK + _MOUNTED)
        if self._thread.is_alive():
            return "readers hang"
        for each in self._seen:
            if each.outcome == "wrong" or each.seconds > _READ_TIMEOUT + _SLACK:
                return f"a reader of the stalled registry: {each.outcome} after {each.seconds:.1f} s"
        # What the registry sends when the image is opened holds some chunks.
        cached = sum(each.outcome == "right" for each in self._seen)
        return f"{cached} of {_READERS} readers needed no registry" if cached > _READERS // 4 else ""
