"""Let hypothesis choose what happens to real mounts, and compare what they show with what `tarfile` reads.

Rules mount, read, compare all, evict and damage cached files, kill, mount again over what a dead process left, let
tokens and redirected addresses expire, and unmount. Each mount has a process of its own, and all share the caches.
"""

from __future__ import annotations

import io
import itertools
import os
import random
import signal
import stat
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

import lazylayer_format_estargz as estargz
from lazylayer_building import BuildOptions
from lazylayer_testing.registry import ImageLayer, ScriptedRegistry, TokenAuthentication
from torture.campaign import Campaign
from torture.nursery import MountProcess, Nursery
from torture.reader import Read, Reader

__all__ = ["Stateful"]

_IMAGES = ("one", "two")
_PLACES = ("a", "b")
_WAIT = 60.0
_STEPS = 25


class Stateful(Campaign):
    """Each kind is a frontend; a case is some sequences of steps."""

    name = "stateful"
    unit = "steps"
    counts = 5_000
    per_case = 100
    deadline = 300.0
    address_space = 64 << 30
    kinds = ("frontend_erofs", "frontend_fuse")

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.registry = ScriptedRegistry(authentication=TokenAuthentication())
        self.storage = ScriptedRegistry()
        self.registry.__enter__()
        self.storage.__enter__()
        self.signer = self.registry.redirect_blobs(self.storage)
        self.nursery = Nursery(directory)
        self.reader = Reader(4)
        self.trees = {name: _Tree(directory / name, name) for name in _IMAGES}
        for name, tree in self.trees.items():
            self.registry.content.add_image(f"torture/{name}", "latest", [_build(tree.archive)])

    def run(self, kind: str, seed: int) -> str:
        """Run sequences; what goes wrong is raised, with the steps that led there."""
        homes = (self.directory / f"home-{seed}-{number}" for number in itertools.count())
        # The first sequence that hypothesis makes is the simplest, and does nothing of interest.
        chosen = settings(
            max_examples=max(self.per_case // 20, 2),
            stateful_step_count=_STEPS,
            deadline=None,
            database=None,
            derandomize=False,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        campaign = self

        class Machine(_Machine):
            def __init__(self) -> None:
                super().__init__(campaign, kind, next(homes))

        run_state_machine_as_test(hypothesis.seed(seed)(Machine), settings=chosen)
        return ""

    def count(self, step: str) -> None:
        """Count a step."""
        self.tried += 1
        self.outcomes[step] += 1

    def close(self) -> None:
        """End what it started; the runner ends mounts that are left."""
        self.reader.close()
        self.nursery.close()
        self.registry.__exit__(None, None, None)
        self.storage.__exit__(None, None, None)


class _Mounted(NamedTuple):
    """A mount as it should be: which image, and the process that made it."""

    image: str
    process: MountProcess


class _Machine(RuleBasedStateMachine):
    def __init__(self, campaign: Stateful, frontend: str, home: Path) -> None:
        super().__init__()
        self.campaign = campaign
        self.home = home
        self.mounted: dict[str, _Mounted] = {}
        self.dead: set[str] = set()
        self.settings = [
            f"root={home}/root",
            f"run={home}/run",
            "log.level=ERROR",
            f'resolve.plain_http=["{campaign.registry.host}"]',
            f"mount.frontend={frontend}",
            "background.enabled=false",
            "prefetch.enabled=false",
            "cache.chunks=cache_dir",
            "cache.ranges=cache_dir",
            "plugin.frontend_erofs.keeper=process",
        ]
        self.survives = frontend == "frontend_erofs"
        for place in _PLACES:
            (home / place).mkdir(parents=True, exist_ok=True)

    def _living(self, place: str) -> bool:
        return place in self.mounted and place not in self.dead

    def _mount(self, place: str, image: str) -> None:
        reference = self.campaign.registry.reference(f"torture/{image}")
        process = self.campaign.nursery.start(self.settings, (reference, self.home / place))
        problem = process.wait(_WAIT)
        assert not problem, problem
        self.mounted[place] = _Mounted(image, process)
        self.dead.discard(place)

    def _random_read(self, place: str, number: int) -> Read:
        choose = random.Random(number)
        tree = self.campaign.trees[self.mounted[place].image]
        name = choose.choice(tree.files)
        size = (tree.directory / name).stat().st_size
        return Read(str(self.home / place / name), str(tree.directory / name), choose.randrange(size), 50_000)

    @rule(place=st.sampled_from(_PLACES), image=st.sampled_from(_IMAGES))
    def mount(self, place: str, image: str) -> None:
        """Mount an image where none is, or another one over what a dead process left."""
        if self._living(place):
            return
        self.campaign.count("mounts over a dead mount" if place in self.dead else "mounts")
        self._mount(place, image)
        self._compare(place)

    @precondition(lambda self: self.mounted)
    @rule(place=st.sampled_from(_PLACES), number=st.integers(0, 1 << 30))
    def read(self, place: str, number: int) -> None:
        """Read somewhere: the right bytes; if nothing serves the mount, an error."""
        if place not in self.mounted or (self.survives and place in self.dead):
            return  # the reader would wait for the next process: see `restart`
        self.campaign.count("reads" if self._living(place) else "reads of a dead mount")
        (seen,) = self.campaign.reader.read([self._random_read(place, number)])
        assert seen.outcome == "right" or (place in self.dead and seen.outcome != "wrong"), seen

    @precondition(lambda self: self.mounted)
    @rule(place=st.sampled_from(_PLACES))
    def compare(self, place: str) -> None:
        """Compare the tree with its archive."""
        if self._living(place):
            self.campaign.count("comparisons")
            self._compare(place)

    @rule(number=st.integers(0, 1 << 30), damage=st.booleans())
    def evict(self, number: int, damage: bool) -> None:
        """Remove some of the cached files, or cut them short, behind the processes' backs."""
        choose = random.Random(number)
        caches = (self.home / "root").glob("**/v1/??/*")
        files = [each for each in caches if each.is_file() and choose.random() < 0.5]
        for each in files:
            if damage:
                os.truncate(each, each.stat().st_size // 2)
            else:
                each.unlink()
        if files:
            self.campaign.count("damaged caches" if damage else "evictions")

    @precondition(lambda self: self.mounted)
    @rule()
    def expire(self) -> None:
        """Let tokens and redirected addresses expire."""
        self.campaign.count("expiries")
        authentication = self.campaign.registry.authentication
        assert isinstance(authentication, TokenAuthentication)
        authentication.revoke()
        self.campaign.signer.expire()

    @precondition(lambda self: self.mounted)
    @rule(place=st.sampled_from(_PLACES))
    def kill(self, place: str) -> None:
        """Kill the process of a mount."""
        if self._living(place):
            self.campaign.count("kills")
            assert self.mounted[place].process.end(signal.SIGKILL)
            self.dead.add(place)

    @precondition(lambda self: self.dead)
    @rule(place=st.sampled_from(_PLACES), number=st.integers(0, 1 << 30))
    def restart(self, place: str, number: int) -> None:
        """Mount the same image again. A reader that waits meanwhile gets right bytes, if a keeper holds the mount."""
        if place not in self.dead:
            return
        self.campaign.count("restarts")
        seen: list[str] = []
        read = self._random_read(place, number)
        waiting = threading.Thread(target=lambda: seen.append(self.campaign.reader.read([read])[0].outcome))
        waiting.start()
        self._mount(place, self.mounted[place].image)
        waiting.join(_WAIT)
        assert seen == ["right"] or (seen and not self.survives and seen != ["wrong"]), seen or "a reader hangs"
        self._compare(place)

    @precondition(lambda self: self.mounted)
    @rule(place=st.sampled_from(_PLACES))
    def unmount(self, place: str) -> None:
        """End the process of a mount by SIGTERM; nothing stays mounted."""
        if self._living(place):
            self.campaign.count("unmounts")
            self._unmount(place)

    def _unmount(self, place: str) -> None:
        assert self.mounted.pop(place).process.end(signal.SIGTERM, _WAIT), "SIGTERM does not end it"
        assert not list((self.home / place).iterdir()), "something stays mounted"

    def _compare(self, place: str) -> None:
        tree = self.campaign.trees[self.mounted[place].image]
        assert tree.differences(self.home / place) == []

    def teardown(self) -> None:
        """Take over what is dead, and unmount all."""
        for place in list(self.mounted):
            if place in self.dead:
                self._mount(place, self.mounted[place].image)
            self._unmount(place)
        mounts = Path("/proc/self/mounts").read_text()
        assert f"{self.home}/" not in mounts, "something stays mounted"


class _Tree:
    """A tar archive, and what `tarfile` reads of it: the oracle."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir()
        self.directory = directory
        """The contents of its files, for `Reader`."""
        self.archive = _archive(name)
        self.files: list[str] = []
        self._members: dict[str, tuple[tarfile.TarInfo, bytes | None]] = {}
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as members:
            for member in members:
                file = members.extractfile(member) if member.isreg() or member.islnk() else None
                self._members[member.name] = member, file.read() if file else None
        for path, (member, data) in self._members.items():
            if member.isreg() and data:
                (directory / path).parent.mkdir(parents=True, exist_ok=True)
                (directory / path).write_bytes(data)
                self.files.append(path)

    def differences(self, root: Path) -> list[str]:
        """Return how the tree at `root` differs from the archive."""
        shown = {str(each.relative_to(root)) for each in root.rglob("*")}
        found = [f"{name} is missing or too much" for name in shown ^ set(self._members)]
        for name, (member, data) in self._members.items():
            if name in shown and (problem := _problem(root / name, member, data)):
                found.append(f"{name}: {problem}")
        return found


def _problem(path: Path, member: tarfile.TarInfo, data: bytes | None) -> str:
    status = path.lstat()
    facts: dict[str, tuple[Any, Any]] = {
        "kind": (_kind(status.st_mode), member.type if member.type != tarfile.LNKTYPE else tarfile.REGTYPE),
    }
    if member.issym():
        facts["target"] = os.readlink(path), member.linkname  # noqa: PTH115 - as it is written
    elif not member.islnk():
        facts["mode"] = stat.S_IMODE(status.st_mode), member.mode
        facts["owner"] = (status.st_uid, status.st_gid), (member.uid, member.gid)
        facts["time"] = int(status.st_mtime), int(member.mtime)
    if data is not None:
        facts["data"] = path.read_bytes(), data
    return ", ".join(fact for fact, (got, wanted) in facts.items() if got != wanted)


_KINDS: dict[int, bytes] = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
}


def _kind(mode: int) -> bytes:
    return _KINDS[stat.S_IFMT(mode)]


def _archive(name: str) -> bytes:
    choose = random.Random(name)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as members:
        add = _adder(members)
        for directory in ("bin", "lib", "lib/deep"):
            add(directory, tarfile.DIRTYPE, b"", 0o755)
        for number, size in enumerate((1, 100, 4096, 16_384, 16_385, 50_000, 120_000)):
            add(f"lib/file-{number}", tarfile.REGTYPE, choose.randbytes(size), choose.choice((0o644, 0o600, 0o755)))
        add("empty", tarfile.REGTYPE, b"", 0o644)
        add(f"only-in-{name}", tarfile.REGTYPE, name.encode(), 0o644)
        add("bin/link", tarfile.SYMTYPE, b"../lib/file-3", 0o777)
        add("lib/deep/hard", tarfile.LNKTYPE, b"lib/file-5", 0o644)
    return archive.getvalue()


def _adder(members: tarfile.TarFile) -> Callable[[str, bytes, bytes, int], None]:
    def add(name: str, kind: bytes, data: bytes, mode: int) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid, info.mtime = kind, mode, 7, 8, 1_600_000_000
        if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info.linkname = data.decode()
            members.addfile(info)
            return
        info.size = len(data)
        members.addfile(info, io.BytesIO(data))

    return add


def _build(archive: bytes) -> ImageLayer:
    layer = io.BytesIO()
    built = estargz.lazylayer_build_layer(
        "estargz", io.BytesIO(archive), layer, BuildOptions(chunk_size=16 << 10, level=1)
    )
    return ImageLayer(layer.getvalue(), annotations=built.descriptor.annotations, diff_id=built.diff_id)
