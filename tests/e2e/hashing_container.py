"""A container in which eight readers hash files past the page cache, and say when one is wrong."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from e2e.containerd_node import PYTHON, SNAPSHOTTER
from lazylayer_testing.servers.containerd import Containerd
from lazylayer_testing.servers.process import wait_until

__all__ = ["HashingContainer"]

_BELOW = "usr/lib/"

_SCRIPT = """
import hashlib, json, os, random, threading, time
expected = json.loads({expected!r})
# What this program runs from stays in the page cache, whatever the readers drop: a fault that cannot be
# answered would end it, and errors would go unseen.
mapped = {{line.split()[-1] for line in open("/proc/self/maps") if line.rstrip().rpartition(" ")[2].startswith("/")}}
for path in mapped:
    open(path, "rb").read()
expected = {{name: digest for name, digest in expected.items() if os.path.realpath("/" + name) not in mapped}}
try:
    os.open("/nowhere", os.O_RDONLY)
except OSError as error:
    str(error.errno)
checked = [0] * {readers}
def check(name):
    sums = hashlib.sha256()
    try:
        descriptor = os.open("/" + name, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            while data := os.read(descriptor, 128 * 1024):
                sums.update(data)
        finally:
            os.close(descriptor)
    except OSError as error:
        print("error", error.errno, name, flush=True)
        time.sleep(0.1)
        return
    if sums.hexdigest() != expected[name]:
        print("wrong", name, flush=True)
def read(number):
    names = list(expected)
    random.Random(number).shuffle(names)
    while True:
        for name in names:
            check(name)
            checked[number] += 1
print("files", len(expected), flush=True)
for number in range(len(checked)):
    threading.Thread(target=read, args=(number,)).start()
while True:
    print("least", min(checked), flush=True)
    time.sleep(0.1)
"""


class HashingContainer:
    """Runs in `containerd` from the image `reference`, which shows the archives `layers`, lowest first."""

    def __init__(
        self, containerd: Containerd, reference: str, layers: Sequence[Path], log: Path, *, readers: int = 8
    ) -> None:
        self._containerd = containerd
        self._log = log
        script = log.with_suffix(".py")
        script.write_text(_SCRIPT.format(expected=json.dumps(_digests(layers)), readers=readers))
        options = ["--detach", "--snapshotter", SNAPSHOTTER, "--log-uri", f"file://{log}"]
        options += ["--mount", f"type=bind,src={script},dst=/tmp/read.py,options=rbind:ro"]
        containerd.ctr("run", *options, reference, log.stem, PYTHON, "-IB", "/tmp/read.py")
        self.wait_for_reads()

    def wait_for_reads(self, files: int = 2) -> None:
        """Wait until every reader has hashed so many more files, or failed to."""
        before = self._least()
        wait_until(lambda: self._least() >= before + files, "each reader in the container goes on", 60)

    def wait_for_all(self) -> None:
        """Wait until every reader has hashed every file once more, or failed to."""
        self.wait_for_reads(int(self._lines("files")[0].split()[1]))

    def failures(self) -> list[str]:
        """Return the files that could not be read so far."""
        return self._lines("error")

    def wrong(self) -> list[str]:
        """Return the files whose content was wrong."""
        return self._lines("wrong")

    def remove(self) -> None:
        """End and remove the container."""
        self._containerd.ctr("tasks", "delete", "--force", self._log.stem)
        self._containerd.ctr("containers", "delete", self._log.stem)

    def _least(self) -> int:
        return int((self._lines("least") or ["least 0"])[-1].split()[1])

    def _lines(self, kind: str) -> list[str]:
        text = self._log.read_text() if self._log.exists() else ""
        return [line for line in text.splitlines() if line.startswith(f"{kind} ")]


def _digests(layers: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of each file below /usr/lib, by its path."""
    digests: dict[str, str] = {}
    for layer in layers:
        with tarfile.open(layer) as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                file = tar.extractfile(member) if member.isreg() and name.startswith(_BELOW) else None
                if file is not None:
                    digests[name] = hashlib.sha256(file.read()).hexdigest()
    return digests
