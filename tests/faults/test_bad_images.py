"""Images that are damaged, cut short or lying: errors and words about them, never wrong bytes or a hang."""

from __future__ import annotations

import errno
import gzip
import io
import json
import random
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from images.lazy_layer import build_estargz
from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.mounting import Missing
from lazylayer.api.oci import parse_reference, sha256_digest
from lazylayer.errors import LayerError, LazylayerError, VerificationError
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.program import Program
from lazylayer_building import BuildOptions
from lazylayer_format_estargz.footer import find_footer, make_footer
from lazylayer_testing.registry import Fault, ImageLayer, ScriptedRegistry

pytestmark = pytest.mark.fuse

NAME = "tests/bad"
CHUNK = 16 * 1024
FILES = {"first": random.Random(1).randbytes(100_000), "second": random.Random(2).randbytes(50_000), "small": b"tiny"}
Toc = dict[str, Any]


class Machine:
    """A registry with one image, and a program that mounts it with one frontend."""

    def __init__(self, registry: ScriptedRegistry, directory: Path, frontend: str) -> None:
        self.registry = registry
        self.mountpoint = directory / "mnt"
        self.mountpoint.mkdir()
        self.program = Program.load(
            overrides=[
                f"root={directory}/root",
                f"run={directory}/run",
                f'resolve.plain_http=["{registry.host}"]',
                f"mount.frontend={frontend}",
                "background.enabled=false",
                "plugin.resolver_registry.attempts=2",
                "plugin.resolver_registry.idle_timeout=1",
                "fetch.window_min=1",
                "fetch.window_max=1",
            ]
        )
        self.filesystem = Filesystem(self.program)
        layer = build_estargz(self.program.hooks, FILES, BuildOptions(chunk_size=CHUNK))
        self.data, self.diff_id = layer.data, layer.diff_id

    def publish(self, data: bytes, toc_digest: str) -> str:
        layer = ImageLayer(data, annotations={TOC_DIGEST: toc_digest}, diff_id=self.diff_id)
        self.registry.content.add_image(NAME, "latest", [layer])
        return sha256_digest(data)

    def publish_changed(self, change: Callable[[Toc], None]) -> str:
        """Publishes the layer with a changed table of contents, and with the digest of that."""
        footer = find_footer(self.data[-51:], len(self.data))
        assert footer is not None and footer.toc_offset is not None
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(self.data[footer.toc_offset : -51]))) as members:
            (member,) = members.getmembers()
            extracted = members.extractfile(member)
            assert extracted is not None
            toc = json.load(extracted)
        change(toc)
        text = json.dumps(toc).encode()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
        data = self.data[: footer.toc_offset] + gzip.compress(packed.getvalue()) + make_footer(footer.toc_offset)
        return self.publish(data, sha256_digest(text))

    def publish_good(self) -> str:
        return self.publish_changed(lambda toc: None)

    def mount(self) -> None:
        self.filesystem.mount_image(str(self.mountpoint), parse_reference(self.registry.reference(NAME)))

    def read(self, name: str) -> bytes:
        """Reads a file as another process, as it always is: one that waits for itself cannot be ended."""
        done = subprocess.run(["cat", self.mountpoint / name], capture_output=True, timeout=90, check=False)
        if b"Input/output error" in done.stderr:
            raise OSError(errno.EIO, "cat said so")
        assert done.returncode == 0, done.stderr
        return done.stdout


def assert_eio(read: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        read()
    assert caught.value.errno == errno.EIO


@pytest.fixture(params=["frontend_fuse", "frontend_erofs"])
def machine(request: pytest.FixtureRequest, as_root: None, tmp_path: Path) -> Iterator[Machine]:
    with ScriptedRegistry() as registry:
        machine = Machine(registry, tmp_path, request.param)
        found = machine.program.hooks.of(request.param).probe_frontend()
        try:
            if isinstance(found, Missing):
                pytest.skip(str(found))
            yield machine
        finally:
            registry.forget_rules()
            machine.filesystem.close()
            machine.program.close()


def entry(toc: Toc, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in toc["entries"] if each["name"].strip("./") == name)
    return found


def test_a_good_image_is_what_it_is(machine: Machine) -> None:
    machine.publish_good()
    machine.mount()
    assert {name: machine.read(name) for name in FILES} == FILES


def test_a_damaged_chunk_is_an_error_until_it_is_whole_again(machine: Machine) -> None:
    digest = machine.publish_good()
    machine.mount()
    rule = Fault(rewrite=lambda body: body[:-20] + bytes(20))
    machine.registry.script(rule, path="*/blobs/*", times=None)
    for _ in range(2):
        assert_eio(lambda: machine.read("first"))
    assert "error" in read_state(machine, digest)
    machine.registry.forget_rules()
    assert machine.read("first") == FILES["first"]


def read_state(machine: Machine, digest: str) -> str:
    """The state file that the mount itself shows, or, where a frontend cannot, that of the run directory."""
    shown = machine.mountpoint / ".stargz-snapshotter" / f"{digest}.json"
    if shown.exists():
        return shown.read_text()
    run = Path(machine.program.settings.run)
    return "\n".join(each.read_text() for each in run.rglob(f"*{digest[7:]}*.json"))


def test_a_blob_that_ends_early_is_an_error(machine: Machine) -> None:
    digest = machine.publish_good()
    machine.mount()
    machine.registry.script(Fault(truncate_after=100), path="*/blobs/*", times=None)
    assert_eio(lambda: machine.read("second"))
    assert "error" in read_state(machine, digest)
    machine.registry.forget_rules()
    assert machine.read("second") == FILES["second"]


def test_a_registry_that_stands_still_is_an_error_and_no_hang(machine: Machine) -> None:
    machine.publish_good()
    machine.mount()
    machine.registry.script(Fault(stall_after=100, stall_seconds=60), path="*/blobs/*", times=None)
    with ThreadPoolExecutor(4) as readers:
        results = [readers.submit(machine.read, "second") for _ in range(4)]
        for result in results:
            assert_eio(lambda result=result: result.result(60))  # type: ignore[misc]


def test_a_damaged_table_of_contents_is_not_mounted(machine: Machine) -> None:
    machine.publish(machine.data, sha256_digest(b"another table"))
    with pytest.raises(VerificationError):
        machine.mount()
    assert list(machine.mountpoint.iterdir()) == []


def test_a_layer_without_a_promise_is_not_mounted(machine: Machine) -> None:
    layer = ImageLayer(machine.data, diff_id=machine.diff_id)
    machine.registry.content.add_image(NAME, "latest", [layer])
    with pytest.raises(VerificationError, match="annotation"):
        machine.mount()


def test_a_blob_that_was_cut_off_is_not_mounted(machine: Machine) -> None:
    machine.publish(machine.data[:-10], sha256_digest(b""))
    with pytest.raises(LazylayerError):
        machine.mount()


def lie_about_digest(toc: Toc) -> None:
    entry(toc, "first")["chunkDigest"] = sha256_digest(b"something else")


def lie_about_offset(toc: Toc) -> None:
    entry(toc, "first")["offset"] = entry(toc, "second")["offset"]


def lie_about_inner_offset(toc: Toc) -> None:
    entry(toc, "first")["innerOffset"] = 5


def claim_more(toc: Toc) -> None:
    """The last chunk claims more than its member holds."""
    entry(toc, "small")["size"] = 40_000


@pytest.mark.parametrize("lie", [lie_about_digest, lie_about_offset, lie_about_inner_offset, claim_more])
def test_a_lying_table_is_refused_or_an_error(machine: Machine, lie: Callable[[Toc], None]) -> None:
    machine.publish_changed(lie)
    try:
        machine.mount()
    except LayerError:
        return
    for name in ("first", "small"):
        try:
            data = machine.read(name)
        except OSError as error:
            assert error.errno == errno.EIO
        else:
            assert data == FILES[name]
    assert machine.read("second") == FILES["second"], "the truth beside the lie is read"


def absurd_size(toc: Toc) -> None:
    entry(toc, "first")["size"] = 1 << 62


def absurd_chunk(toc: Toc) -> None:
    entry(toc, "first")["chunkSize"] = 1 << 40


def negative_offset(toc: Toc) -> None:
    entry(toc, "first")["offset"] = -5


def offset_behind_the_end(toc: Toc) -> None:
    entry(toc, "first")["offset"] = 1 << 50


def loop(toc: Toc) -> None:
    toc["entries"] += [
        {"name": "a", "type": "hardlink", "linkName": "b"},
        {"name": "b", "type": "hardlink", "linkName": "a"},
    ]


def link_to_nowhere(toc: Toc) -> None:
    toc["entries"].append({"name": "a", "type": "hardlink", "linkName": "../../etc/passwd"})


@pytest.mark.parametrize(
    "lie", [absurd_size, absurd_chunk, negative_offset, offset_behind_the_end, loop, link_to_nowhere]
)
def test_an_absurd_table_is_not_mounted(machine: Machine, lie: Callable[[Toc], None]) -> None:
    machine.publish_changed(lie)
    with pytest.raises(LayerError):
        machine.mount()
    assert list(machine.mountpoint.iterdir()) == []


def test_names_stay_in_their_tree(machine: Machine) -> None:
    def climb(toc: Toc) -> None:
        toc["entries"].append({"name": "../../../climbed", "type": "symlink", "linkName": "/etc", "mode": 0o777})

    machine.publish_changed(climb)
    try:
        machine.mount()
    except LayerError:
        return
    assert (machine.mountpoint / "climbed").readlink() == Path("/etc")


def test_a_registry_that_goes_away_is_an_error_and_what_is_here_is_read(machine: Machine) -> None:
    machine.publish_good()
    machine.mount()
    assert machine.read("first") == FILES["first"]
    machine.registry.script(Fault(status=503), path="*", times=None)
    assert machine.read("first") == FILES["first"]
    assert_eio(lambda: machine.read("second"))


def test_readers_of_a_bad_chunk_all_get_the_error(machine: Machine) -> None:
    machine.publish_changed(lie_about_digest)
    machine.mount()
    barrier = threading.Barrier(8)

    def read(_: int) -> int | None:
        barrier.wait(30)
        try:
            machine.read("first")
        except OSError as error:
            return error.errno
        return None

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(read, range(8))) == {errno.EIO}
