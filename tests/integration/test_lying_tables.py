"""verify compares the table of contents with the archive: what a lazy mount shows is what every runtime unpacks."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lazylayer_format_estargz
import lazylayer_format_zstdchunked
from lazylayer import hookimpl
from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.oci import (
    Descriptor,
    Digest,
    ImageConfig,
    Manifest,
    MediaType,
    Reference,
    ResolvedImage,
    RootFilesystem,
    sha256_digest,
)
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager
from lazylayer_building import BuildOptions, BuiltLayer
from lazylayer_testing.synthetic import MemorySource
from lazylayer_tool_images.building import build_layer
from lazylayer_tool_images.verification import LayerVerification, verify_image

Entries = list[dict[str, Any]]


class OneBlob:
    """A resolver that knows one blob."""

    data = b""

    @hookimpl
    def lazylayer_resolve_blob(self) -> MemorySource:
        return MemorySource(self.data)


@pytest.fixture
def place() -> OneBlob:
    return OneBlob()


@pytest.fixture
def hooks(place: OneBlob) -> Hooks:
    manager = make_manager()
    for plugin in (lazylayer_format_estargz, lazylayer_format_zstdchunked, place):
        manager.register(plugin)
    return Hooks(manager)


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mtime, member.mode = kind, len(content), 1_600_000_000.25, 0o755
            for key, value in fields.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content))

        add("bin", kind=tarfile.DIRTYPE)
        add("bin/sh", b"#" * 5000, pax_headers={"SCHILY.xattr.user.a": "1"})
        add("bin/ls", b"l" * 5000)
        add("bin/dash", kind=tarfile.LNKTYPE, linkname="bin/sh")
        add("bin/ash", kind=tarfile.SYMTYPE, linkname="sh")
        add("dev/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3)
        add("etc/.wh.shadow")
        add("empty")
        add("twice", b"first")
        add("once", kind=tarfile.LNKTYPE, linkname="twice")
        add("twice", b"other")
    return out.getvalue()


def build(hooks: Hooks, data: bytes, form: str = "estargz", **options: Any) -> tuple[bytes, BuiltLayer]:
    out = io.BytesIO()
    built = build_layer(hooks, form, io.BytesIO(data), out, BuildOptions(**options))
    return out.getvalue(), built


def lie(blob: bytes, change: Callable[[Entries], object]) -> tuple[bytes, Descriptor, str]:
    """An eStargz layer with another table of contents, and everything signed as it should be."""
    toc_offset = int(blob[-51:][16:32], 16)
    tail = gzip.decompress(blob[toc_offset:-51])
    toc = json.loads(tail[512 : 512 + int(tail[124:135], 8)])
    change(toc["entries"])
    data = json.dumps(toc).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("stargz.index.json")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    lying = blob[:toc_offset] + gzip.compress(out.getvalue()) + blob[-51:]
    descriptor = Descriptor(
        MediaType.OCI_LAYER_GZIP, sha256_digest(lying), len(lying), {TOC_DIGEST: sha256_digest(data)}
    )
    return lying, descriptor, sha256_digest(gzip.decompress(lying))


def verify(hooks: Hooks, place: OneBlob, blob: bytes, layer: Descriptor, diff_id: str) -> LayerVerification:
    place.data = blob
    config = ImageConfig(rootfs=RootFilesystem(diff_ids=[Digest(diff_id)]))
    empty = Descriptor(MediaType.OCI_CONFIG, sha256_digest(b""), 0)
    manifest = Manifest(empty, [layer], 2, MediaType.OCI_MANIFEST)
    image = ResolvedImage(
        Reference("image", "registry.test", "1"), sha256_digest(b""), MediaType.OCI_MANIFEST, manifest, config, b"", b""
    )
    (found,) = verify_image(hooks, image)
    return found


def entry(entries: Entries, name: str) -> dict[str, Any]:
    return next(each for each in entries if each["name"] == name)


@pytest.mark.parametrize("form", ["estargz", "zstdchunked"])
@pytest.mark.parametrize("options", [{}, {"chunk_size": 1000}, {"min_chunk_size": 100_000}, {"prefetch": [b"bin/ls"]}])
def test_honest_layer_is_good(hooks: Hooks, place: OneBlob, form: str, options: dict[str, Any]) -> None:
    blob, built = build(hooks, archive(), form, **options)
    found = verify(hooks, place, blob, built.descriptor, built.diff_id)
    assert (found.format, found.problems) == (form, ())


@pytest.mark.parametrize("form", ["estargz", "zstdchunked"])
def test_odd_layers_are_good(hooks: Hooks, place: OneBlob, odd_layers: list[Path], form: str) -> None:
    for layer in odd_layers:
        blob, built = build(hooks, layer.read_bytes(), form)
        assert verify(hooks, place, blob, built.descriptor, built.diff_id).problems == ()


def swap_contents(entries: Entries) -> None:
    one, other = entry(entries, "bin/sh"), entry(entries, "bin/ls")
    for key in ("offset", "innerOffset", "digest", "chunkDigest"):
        one[key], other[key] = other.get(key), one.get(key)
        for each in (one, other):
            if each[key] is None:
                del each[key]


LIES: dict[str, tuple[Callable[[Entries], object], str]] = {
    "a setuid program": (lambda entries: entry(entries, "bin/sh").update(mode=0o104755), "/bin/sh: mode 0755 → 4755"),
    "another owner": (lambda entries: entry(entries, "bin/ls").update(uid=7), "/bin/ls: owner 0:0 → 7:0"),
    "one file more": (
        lambda entries: entries.append({**entry(entries, "bin/ls"), "name": "bin/su"}),
        "/bin/su: only the table of contents has it",
    ),
    "one file less": (lambda entries: entries.remove(entry(entries, "bin/ls")), "/bin/ls: only the archive has it"),
    "no whiteout": (
        lambda entries: entries.remove(entry(entries, "etc/.wh.shadow")), "/etc/shadow: only the archive has it"
    ),
    "another target": (lambda entries: entry(entries, "bin/ash").update(linkName="ls"), "/bin/ash: target 'sh' → 'ls'"),
    "another device": (lambda entries: entry(entries, "dev/null").update(devMinor=5), "/dev/null: device"),
    "other attributes": (lambda entries: entry(entries, "bin/sh").update(xattrs={}), "/bin/sh: extended attributes"),
    "another time": (lambda entries: entry(entries, "bin/").update(modtime="2001-01-01T00:00:00Z"), "/bin: mtime"),
    "another type": (
        lambda entries: entry(entries, "empty").update(type="symlink", linkName="bin/sh"), "/empty: type file → symlink"
    ),
    "another file's content": (swap_contents, "/bin/ls: the chunk at 0 is not the content that the archive has"),
    "a link that is another file": (
        lambda entries: entry(entries, "bin/dash").update(linkName="bin/ls"), "/bin/ls: links 1 → 2"
    ),
    "a directory without an entry": (
        lambda entries: entries.append({"name": "etc/", "type": "dir", "mode": 0o1777}), "/etc: only the table"
    ),
    "content under a name that was replaced": (
        lambda entries: entry(entries, "once").update(
            {key: entry(entries, "twice")[key] for key in ("offset", "digest", "chunkDigest")}
        ),
        "/once: the chunk at 0 is not the content that the archive has",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_lie_is_found(hooks: Hooks, place: OneBlob, name: str) -> None:
    change, told = LIES[name]
    blob, _ = build(hooks, archive())
    found = verify(hooks, place, *lie(blob, change))
    assert found.format == "estargz"
    assert any(problem.startswith(told) for problem in found.problems), found.problems


def test_time_may_be_rounded_as_the_go_builder_does(hooks: Hooks, place: OneBlob) -> None:
    blob, _ = build(hooks, archive())
    found = verify(hooks, place, *lie(blob, lambda entries: [
        each.update(modtime="2020-09-13T12:26:40Z") for each in entries if "modtime" in each
    ]))  # fmt: skip
    assert found.problems == ()
