from __future__ import annotations

import gzip
import hashlib
import io
import stat
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lazylayer_format_estargz as plugin
from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.layers import LayerContents
from lazylayer.api.oci import sha256_digest
from lazylayer.api.tree import clean_path
from lazylayer.errors import BuildError, FormatError, LazylayerError
from lazylayer_building import BuildOptions, BuiltLayer
from lazylayer_format_estargz.compression import gzip_compressor
from lazylayer_tarlayers.annotations import UNCOMPRESSED_SIZE
from lazylayer_tarlayers.tarmember import MemberKind, TarMember, padding
from lazylayer_tarlayers.tarwriter import make_header
from lazylayer_testing.facts.layers import read_file
from lazylayer_testing.synthetic import companions_of, make_blob

END = bytes(1024)


def archive(*members: tuple[TarMember, bytes], end: bytes = END) -> bytes:
    pieces = []
    for member, content in members:
        member.size = len(content)
        pieces.append(make_header(member) + content + bytes(padding(len(content))))
    return b"".join(pieces) + end


def file(name: bytes, content: bytes = b"content", **fields: Any) -> tuple[TarMember, bytes]:
    return TarMember(name, "reg", mode=0o644, **fields), content


def other(name: bytes, kind: MemberKind, **fields: Any) -> tuple[TarMember, bytes]:
    return TarMember(name, kind, mode=0o755, **fields), b""


@dataclass
class Built:
    blob: bytes
    layer: BuiltLayer
    contents: LayerContents

    def read(self, path: bytes) -> bytes:
        entry = self.contents.tree.lookup(path)
        assert entry is not None and entry.is_file
        return read_file(self.contents, self.blob, entry)

    def offset(self, path: bytes) -> int:
        entry = self.contents.tree.lookup(path)
        assert entry is not None and entry.chunk_count
        return self.contents.chunks[entry.first_chunk].offset

    @property
    def plain(self) -> bytes:
        return gzip.decompress(self.blob)


def build(data: bytes, **options: Any) -> Built:
    out = io.BytesIO()
    layer = plugin.lazylayer_build_layer("estargz", io.BytesIO(data), out, BuildOptions(**options))
    blob = out.getvalue()
    contents = plugin.lazylayer_open_layer(make_blob(blob), layer.descriptor, True, companions_of(blob))
    assert contents is not None
    return Built(blob, layer, contents)


def names_in(plain: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        return tar.getnames()


def test_legacy_layers_are_not_built() -> None:
    with pytest.raises(BuildError, match="only read"):
        plugin.lazylayer_build_layer("stargz", io.BytesIO(), io.BytesIO(), BuildOptions())


def test_descriptor_says_what_was_written() -> None:
    built = build(archive(file(b"f")))
    descriptor = built.layer.descriptor
    assert (descriptor.digest, descriptor.size) == (sha256_digest(built.blob), len(built.blob))
    assert built.layer.diff_id == sha256_digest(built.plain)
    assert descriptor.annotations == {
        TOC_DIGEST: built.contents.toc_digest,
        UNCOMPRESSED_SIZE: str(len(built.plain)),
    }


def test_empty_archive_makes_an_empty_layer() -> None:
    for data in (b"", END, bytes(10240)):
        built = build(data)
        assert [path for path, _ in built.contents.tree.walk()] == [b""]
        assert built.contents.tree.no_prefetch


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 2000, 12345])
def test_file_is_cut_into_chunks(size: int) -> None:
    content = bytes(index * 7 % 251 for index in range(size))
    built = build(archive(file(b"f", content), file(b"g")), chunk_size=1000)
    entry = built.contents.tree.lookup(b"f")
    assert entry is not None
    assert (entry.size, entry.chunk_count) == (size, -(-size // 1000))
    assert built.read(b"f") == content
    assert built.read(b"g") == b"content"


def test_small_files_share_members_when_asked() -> None:
    members = [file(b"f%d" % number, b"x" * 100) for number in range(100)]
    alone, packed = build(archive(*members)), build(archive(*members), min_chunk_size=20_000)
    assert alone.contents.chunks.members == 101
    assert packed.contents.chunks.members < 10
    assert len(packed.blob) < len(alone.blob) / 2
    assert all(packed.read(b"f%d" % number) == b"x" * 100 for number in range(100))


def test_long_runs_of_headers_do_not_burden_a_chunk() -> None:
    """Reading the file before thousands of directories inflates at most 1 MiB of their headers."""
    directories = [other(b"d%d/" % number, "dir") for number in range(8000)]
    built = build(archive(file(b"f"), *directories, file(b"g")))
    assert built.read(b"f") == built.read(b"g") == b"content"
    assert built.contents.tree.inodes == 8003


@pytest.mark.parametrize("options", [{"chunk_size": 0}, {"chunk_size": 1 << 29}, {"min_chunk_size": -1},
                                     {"level": 0}, {"level": 13}])  # fmt: skip
def test_options_that_cannot_be_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(BuildError):
        build(archive(file(b"f")), **options)


@pytest.mark.parametrize("level", range(1, 13))
def test_every_level_makes_gzip_that_says_nothing_of_its_time(level: int) -> None:
    compress = gzip_compressor(level)
    data = b"some text, and again: some text" * 100
    assert gzip.decompress(compress(data)) == data
    assert compress(data) == compress(data)
    assert compress(data)[4:8] == bytes(4)
    assert gzip.decompress(compress(b"")) == b""


# --- what the archive says ------------------------------------------------------------------------


def test_later_member_of_a_name_wins() -> None:
    built = build(archive(file(b"f", b"old" * 1000), file(b"g"), file(b"./f", b"new")), chunk_size=1000)
    assert built.read(b"f") == b"new"


def test_hard_link_stays_with_the_file_it_was_made_to() -> None:
    members = [file(b"f", b"old" * 1000), other(b"h", "hardlink", link_name=b"f"),
               other(b"i", "hardlink", link_name=b"./h"), file(b"f", b"new")]  # fmt: skip
    built = build(archive(*members), chunk_size=1000)
    assert built.read(b"f") == b"new"
    assert built.read(b"h") == built.read(b"i") == b"old" * 1000
    assert built.contents.tree.lookup(b"h") is built.contents.tree.lookup(b"i")


def test_hard_link_may_come_before_its_target() -> None:
    members = [other(b"h", "hardlink", link_name=b"i"), other(b"i", "hardlink", link_name=b"f"), file(b"f")]
    built = build(archive(*members))
    assert built.read(b"h") == b"content"
    entry = built.contents.tree.lookup(b"f")
    assert entry is not None and entry.nlink == 3


@pytest.mark.parametrize(
    "members",
    [
        [other(b"h", "hardlink", link_name=b"nowhere")],
        [other(b"h", "hardlink", link_name=b"i"), other(b"i", "hardlink", link_name=b"h")],
        [file(b"f"), file(b"f/g")],
        [file(b"x" * 256)],
        [other(b"s", "symlink", link_name=b"x" * 5000)],
        [other(b"c", "char", dev_major=5000)],
        [file(b"f", xattrs={b"user.\xff": b""})],
        [other(b"d/", "dir"), other(b"h", "hardlink", link_name=b"d")],
    ],
)
def test_archive_that_no_layer_can_show_is_refused(members: list[tuple[TarMember, bytes]]) -> None:
    with pytest.raises((BuildError, FormatError)):
        build(archive(*members))


def test_broken_archive_is_refused() -> None:
    whole = archive(file(b"f", b"x" * 5000))
    for cut in (100, 600, 5000):
        with pytest.raises(FormatError):
            build(whole[:cut])


def test_what_another_conversion_added_is_left_out() -> None:
    first = build(archive(file(b"f"), file(b"d/.prefetch.landmark")), prefetch=[b"f"])
    again = build(first.plain)
    assert again.contents.tree.no_prefetch
    assert again.contents.tree.prefetch_landmark is None
    names = names_in(again.plain)
    assert names == [".no.prefetch.landmark", "f", "d/.prefetch.landmark", "stargz.index.json"]
    assert build(again.plain).blob == again.blob


def test_names_that_are_not_utf8_are_kept() -> None:
    members = [file(b"caf\xe9", b"1"), file(b"caf\xe8", b"2"), other(b"s\xff", "symlink", link_name=b"caf\xe9"),
               other(b"h\xff", "hardlink", link_name=b"caf\xe8"), other(b"d\xff/", "dir")]  # fmt: skip
    built = build(archive(*members))
    assert (built.read(b"caf\xe9"), built.read(b"caf\xe8")) == (b"1", b"2")
    assert built.read(b"h\xff") == b"2"
    link = built.contents.tree.lookup(b"s\xff")
    assert link is not None and link.target == b"caf\xe9"


def test_global_headers_are_written_out() -> None:
    out = io.BytesIO()
    everywhere = {"SCHILY.xattr.user.all": "same"}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers=everywhere) as tar:
        tar.addfile(tarfile.TarInfo("a"))
        tar.addfile(tarfile.TarInfo("b"))
    wishes: list[dict[str, Any]] = [{}, {"prefetch": [b"b"]}]
    for options in wishes:
        built = build(out.getvalue(), **options)
        for name in (b"a", b"b"):
            entry = built.contents.tree.lookup(name)
            assert entry is not None and entry.xattrs == {b"user.all": b"same"}


SPARSE_FORMS = ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"]


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_sparse_file_is_written_out(tmp_path: Path, form: str) -> None:
    content = bytes(300_000) + b"middle" * 1000 + bytes(300_000) + b"end"
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(300_000)
        file.write(b"middle" * 1000)
        file.seek(300_000, 1)
        file.write(b"end")
    (tmp_path / "after").write_bytes(b"after")
    options = [form] if form.startswith("--format") else ["--format=pax", form]
    command = ["tar", "--create", "--sparse", "--directory", str(tmp_path), *options, "sparse", "after"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(data) < 100_000
    for wanted in ([], [b"after"]):
        built = build(data, chunk_size=100_000, prefetch=wanted)
        assert built.read(b"sparse") == content
        assert built.read(b"after") == b"after"
        with tarfile.open(fileobj=io.BytesIO(built.plain)) as tar:
            extracted = tar.extractfile("sparse")
            assert extracted is not None and extracted.read() == content


# --- prefetch --------------------------------------------------------------------------------------


def landmark_of(built: Built) -> int:
    landmark = built.contents.tree.prefetch_landmark
    assert landmark is not None
    return built.contents.chunks[landmark.first_chunk].offset


def members_for_prefetch() -> list[tuple[TarMember, bytes]]:
    return [
        other(b"usr/", "dir"),
        file(b"usr/cold", b"c" * 100),
        other(b"usr/lib/", "dir", mtime=5 * 10**9),
        file(b"usr/lib/x.so.1", b"x" * 100),
        other(b"usr/lib/x.so", "symlink", link_name=b"x.so.1"),
        other(b"lib", "symlink", link_name=b"usr/lib"),
        other(b"bin/", "dir"),
        file(b"bin/sh", b"s" * 100),
        other(b"bin/bash", "hardlink", link_name=b"bin/sh"),
        file(b"twice", b"1"),
        file(b"twice", b"2"),
    ]


@pytest.mark.parametrize(
    ("wanted", "hot", "cold"),
    [
        ([b"bin/sh"], [b"bin/sh"], [b"usr/cold", b"usr/lib/x.so.1"]),
        ([b"/lib/x.so"], [b"usr/lib/x.so.1"], [b"usr/cold", b"bin/sh"]),
        ([b"bin/bash", b"usr/cold"], [b"bin/sh", b"usr/cold"], [b"usr/lib/x.so.1"]),
        ([b"nowhere", b"usr/cold"], [b"usr/cold"], [b"bin/sh"]),
        ([b"twice", b"bin/sh"], [b"bin/sh"], [b"twice"]),
    ],
)
@pytest.mark.parametrize("min_chunk_size", [0, 1_000_000])
def test_wanted_files_lie_before_the_landmark(
    wanted: Sequence[bytes], hot: list[bytes], cold: list[bytes], min_chunk_size: int
) -> None:
    built = build(archive(*members_for_prefetch()), prefetch=wanted, min_chunk_size=min_chunk_size)
    landmark = landmark_of(built)
    assert [built.offset(path) < landmark for path in hot] == [True] * len(hot)
    assert [built.offset(path) > landmark for path in cold] == [True] * len(cold)
    plain = build(archive(*members_for_prefetch()))
    assert {path: (entry.mode, entry.size, entry.mtime) for path, entry in built.contents.tree.walk()} == {
        path: (entry.mode, entry.size, entry.mtime) for path, entry in plain.contents.tree.walk()
    }
    assert built.read(b"twice") == b"2"
    names = names_in(built.plain)
    assert names.index("bin") < names.index("bin/sh") < names.index("bin/bash")
    assert names.index("usr") < names.index("usr/lib") < names.index("usr/lib/x.so.1")


def test_order_of_wanted_files_is_kept() -> None:
    built = build(archive(*(file(b"f%d" % number) for number in range(5))), prefetch=[b"f3", b"f0", b"f4"])
    offsets = [built.offset(name) for name in (b"f3", b"f0", b"f4", b"f1", b"f2")]
    assert offsets == sorted(offsets)


def test_links_in_a_circle_are_passed_over() -> None:
    members = [other(b"a", "symlink", link_name=b"b"), other(b"b", "symlink", link_name=b"a"), file(b"f")]
    assert build(archive(*members), prefetch=[b"a/x", b"f"]).read(b"f") == b"content"


# --- round trips -----------------------------------------------------------------------------------

name_parts = st.sampled_from([b"a", b"b", b"\xc3\xa9", b"\xff", b"n" * 120, b".wh.a"])
paths = st.lists(name_parts, min_size=1, max_size=3).map(b"/".join)
contents = st.one_of(st.binary(max_size=100), st.integers(0, 5000).map(lambda size: b"z" * size))
xattrs = st.dictionaries(st.sampled_from([b"user.a", b"security.capability"]), st.binary(max_size=50), min_size=1)


@st.composite
def members(draw: st.DrawFn) -> tuple[TarMember, bytes]:
    kind: MemberKind = draw(st.sampled_from(["reg", "reg", "reg", "dir", "symlink", "char", "fifo"]))
    prefix = draw(st.sampled_from([b"", b"./", b"/"]))
    member = TarMember(prefix + draw(paths), kind, mode=draw(st.integers(0, 0o7777)))
    member.uid, member.gid = draw(st.integers(0, (1 << 32) - 1)), draw(st.integers(0, 70_000))
    member.mtime = draw(st.integers(-(10**18), 10**19))
    member.xattrs = draw(st.one_of(st.none(), xattrs))
    if kind == "symlink":
        member.link_name = draw(paths)
    if kind == "char":
        member.dev_major, member.dev_minor = 1, draw(st.integers(0, 1000))
    return member, draw(contents) if kind == "reg" else b""


@given(
    st.lists(members(), max_size=8),
    st.sampled_from([100, 1000, 4 << 20]),
    st.sampled_from([0, 500]),
    st.sampled_from([1, 6]),
    st.lists(paths, max_size=2),
)
def test_every_member_is_found_again(
    given_members: list[tuple[TarMember, bytes]],
    chunk_size: int,
    min_chunk_size: int,
    level: int,
    prefetch: list[bytes],
) -> None:
    data = archive(*given_members)
    last = {clean_path(member.name): number for number, (member, _) in enumerate(given_members)}
    options: dict[str, Any] = {"chunk_size": chunk_size, "min_chunk_size": min_chunk_size, "level": level}
    try:
        built = build(data, prefetch=prefetch, **options)
    except LazylayerError:
        # A file that is also somebody's parent, say; then no other way of building it works either.
        with pytest.raises(LazylayerError):
            build(data, **options)
        return
    for number, (member, content) in enumerate(given_members):
        path = clean_path(member.name)
        gone = any(
            given_members[later][0].kind != "dir" and path.startswith(parent + b"/")
            for parent, later in last.items()
            if later > number
        )
        if last[path] != number or gone or b".wh." in path:
            continue
        entry = built.contents.tree.lookup(path)
        assert entry is not None
        assert stat.S_IMODE(entry.mode) == member.mode
        assert (entry.uid, entry.gid, entry.xattrs) == (member.uid, member.gid, member.xattrs)
        assert entry.mtime == member.mtime
        if member.kind == "reg":
            assert built.read(path) == content
        assert entry.target == member.link_name
    assert built.layer.diff_id == f"sha256:{hashlib.sha256(built.plain).hexdigest()}"
