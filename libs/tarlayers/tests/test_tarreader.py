from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazylayer.errors import BuildError, FormatError, LazylayerError
from lazylayer_tarlayers.tarmember import MemberKind, TarMember, padding
from lazylayer_tarlayers.tarreader import TarReader
from lazylayer_tarlayers.tarwriter import make_header


class Trickle(io.BytesIO):
    """A source that gives few bytes at a time, as a socket does."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size, 1 + self.tell() % 700) if size and size > 0 else size)


def read_all(data: bytes, trickle: bool = False) -> list[tuple[TarMember, bytes]]:
    reader = TarReader(Trickle(data) if trickle else io.BytesIO(data))
    return [(member, reader.read(1 << 40)) for member in reader]


def python_tar(
    members: list[tuple[tarfile.TarInfo, bytes]], form: int, globals_: dict[str, str] | None = None
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=form, pax_headers=globals_, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


KINDS: dict[bytes, MemberKind] = {
    tarfile.REGTYPE: "reg",
    tarfile.AREGTYPE: "reg",
    tarfile.CONTTYPE: "reg",
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}

names = st.one_of(
    st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.lists(st.sampled_from(["d" * 30, "é" * 40, "x", "y" * 120]), min_size=1, max_size=8).map("/".join),
)


@st.composite
def tar_members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(draw(names))
    member.type = draw(st.sampled_from(list(KINDS)))
    member.mode = draw(st.integers(0, 0o7777))
    member.uid, member.gid = draw(st.integers(0, 0o7777777)), draw(st.integers(0, 0o7777777))
    member.mtime = draw(st.integers(0, 1 << 33).filter(lambda value: value < 1 << 33))
    member.uname, member.gname = draw(st.sampled_from(["", "root", "u" * 31])), "g"
    if member.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        member.linkname = draw(names)
    if member.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        member.devmajor, member.devminor = draw(st.integers(0, 4095)), draw(st.integers(0, 1 << 20))
    content = draw(st.binary(max_size=1500)) if KINDS[member.type] == "reg" else b""
    return member, content


@given(
    st.lists(tar_members(), max_size=5),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.booleans(),
    st.sampled_from([None, {"comment": "no matter"}, {"SCHILY.xattr.user.all": "same"}]),
)
def test_archive_is_read_as_python_reads_it(
    members: list[tuple[tarfile.TarInfo, bytes]], form: int, trickle: bool, globals_: dict[str, str] | None
) -> None:
    data = python_tar(members, form, globals_)
    found = read_all(data, trickle)
    assert len(found) == len(members)
    for (member, content), (wanted, wanted_content) in zip(found, members, strict=True):
        name = wanted.name.encode()
        is_directory = KINDS[wanted.type] == "dir"
        assert member.name == (name + b"/" if is_directory else name)
        assert member.kind == KINDS[wanted.type]
        assert (member.mode, member.uid, member.gid) == (wanted.mode, wanted.uid, wanted.gid)
        assert member.mtime == wanted.mtime * 10**9
        assert member.link_name == wanted.linkname.encode()
        assert (member.user_name, member.group_name) == (wanted.uname.encode(), b"g")
        assert (member.dev_major, member.dev_minor) == (wanted.devmajor, wanted.devminor)
        assert content == wanted_content
        everywhere = {b"user.all": b"same"} if globals_ and "comment" not in globals_ and form == 2 else None
        assert member.xattrs == everywhere
        assert member.depends_on_others == (everywhere is not None)


@given(st.lists(tar_members(), max_size=5), st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_headers_and_contents_are_the_archive(members: list[tuple[tarfile.TarInfo, bytes]], form: int) -> None:
    data = python_tar(members, form)
    copy = b"".join(
        member.raw + content + bytes(padding(len(content))) for member, content in read_all(data, trickle=True)
    )
    assert data.startswith(copy)
    assert not data[len(copy) :].strip(b"\0")


some_bytes = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name and not name.endswith(b"/"))
any_members = st.builds(
    TarMember,
    name=some_bytes,
    kind=st.sampled_from(["reg", "symlink", "hardlink", "char", "block", "fifo"]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, (1 << 32) - 1),
    gid=st.integers(0, (1 << 32) - 1),
    mtime=st.integers(-(10**20), 10**20),
    link_name=st.one_of(st.just(b""), some_bytes),
    user_name=st.one_of(st.just(b""), some_bytes),
    group_name=st.sampled_from([b"", b"root"]),
    dev_major=st.integers(0, 4095),
    dev_minor=st.integers(0, (1 << 20) - 1),
    xattrs=st.one_of(
        st.none(),
        st.dictionaries(
            st.binary(min_size=1, max_size=20).filter(lambda key: b"=" not in key), st.binary(max_size=200), min_size=1
        ),
    ),
)


@given(any_members, st.binary(max_size=600))
def test_written_header_is_read_again(member: TarMember, content: bytes) -> None:
    if member.kind == "reg":
        member.size = member.stored = len(content)
    else:
        content = b""
    if member.kind not in ("char", "block"):
        member.dev_major = member.dev_minor = 0
    header = make_header(member)
    assert make_header(member) == header
    assert len(header) % 512 == 0
    ((found, found_content),) = read_all(header + content + bytes(padding(len(content))) + bytes(1024))
    assert found.raw == header
    found.raw = b""
    assert found == member
    assert found_content == content


@pytest.mark.parametrize("form", ["v7", "ustar", "oldgnu", "gnu", "pax"])
def test_formats_of_gnu_tar_are_read(tmp_path: Path, form: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    deep = "/".join(["directory-with-a-name"] * 4)
    (tree / deep).mkdir(parents=True)
    (tree / deep / "file").write_bytes(b"content")
    os.utime(tree / deep / "file", (1, 1_600_000_000))
    os.link(tree / deep / "file", tree / "hard")
    (tree / "soft").symlink_to("target")
    archive = tmp_path / "a.tar"
    command = ["tar", "--create", "--file", str(archive), "--directory", str(tree), "--sort=name", "--format", form]
    subprocess.run([*command, "--numeric-owner", "."], check=True)
    found = {
        member.name: (member.kind, member.link_name, content) for member, content in read_all(archive.read_bytes())
    }
    file = f"./{deep}/file".encode()
    assert found[b"./"][0] == "dir"
    assert found[b"./hard"] == ("hardlink", file, b"") or found[file] == ("hardlink", b"./hard", b"")
    assert b"content" in [content for _, _, content in found.values()]
    assert found[b"./soft"][:2] == ("symlink", b"target")


@pytest.mark.parametrize("form", ["oldgnu", "0.0", "0.1", "1.0"])
@pytest.mark.parametrize("parts", [0, 1, 3, 60])
def test_sparse_files_of_gnu_tar_are_read(tmp_path: Path, form: str, parts: int) -> None:
    """All four forms, with few parts and with more than one header block holds."""
    size = (parts + 1) * 65536 * 2
    content = bytearray(size)
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        for part in range(parts):
            piece = random.Random(part).randbytes(4096)
            file.seek(part * 131072 + 65536)
            file.write(piece)
            content[file.tell() - 4096 : file.tell()] = piece
        file.truncate(size)
    archive = tmp_path / "a.tar"
    command = ["tar", "--create", "--file", str(archive), "--directory", str(tmp_path), "--sparse"]
    command += ["--format=oldgnu"] if form == "oldgnu" else ["--format=pax", f"--sparse-version={form}"]
    subprocess.run([*command, "sparse"], check=True)
    ((member, stored),) = read_all(archive.read_bytes())
    assert (member.name, member.kind, member.size) == (b"sparse", "reg", size)
    if member.sparse is None:
        assert stored == content
        return
    rebuilt, at = bytearray(size), 0
    for offset, length in member.sparse:
        rebuilt[offset : offset + length] = stored[at : at + length]
        at += length
    assert rebuilt == content
    assert at == member.stored == len(stored)


# --- what is refused -----------------------------------------------------------------------------


def header(name: bytes = b"f", **fields: bytes) -> bytearray:
    """A header block with some fields overwritten, and its checksum right."""
    block = bytearray(make_header(TarMember(name, "reg", size=5)))
    places = {"size": 124, "mode": 100, "uid": 108, "type": 156, "mtime": 136}
    for field, value in fields.items():
        block[places[field] : places[field] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return block


def extended(records: bytes, kind: bytes = b"x", size: bytes | None = None) -> bytes:
    block = header(size=b"%011o\0" % len(records) if size is None else size, type=kind)
    return bytes(block) + records + bytes(padding(len(records)))


CONTENT = b"12345" + bytes(507)


@pytest.mark.parametrize(
    "data",
    [
        bytes(header())[:100],
        bytes(header()),
        bytes(header()) + b"123",
        b"x" * 512,
        bytes(512) + bytes(header()) + CONTENT,
        bytes(header(size=b"zzzzzzzzzzz\0")),
        bytes(header(size=b"00000000009\0")),
        bytes(header(size=b"-0000000005\0")),
        bytes(header(size=b"0o000000005\0")),
        bytes(header(size=b"\xff" * 12)),
        bytes(header(size=b"\x80" + b"\xff" * 11)),
        bytes(header(uid=b"\xff\xff")),
        extended(b"10 path=f\n"),
        extended(b"11 path=f\n") + bytes(header()) + CONTENT,
        extended(b"8 path=f\n") + bytes(header()) + CONTENT,
        extended(b"-1 path=f\n") + bytes(header()) + CONTENT,
        extended(b"10 pathxf\n") + bytes(header()) + CONTENT,
        extended(b"x path=f\n") + bytes(header()) + CONTENT,
        extended(b"0 \n") + bytes(header()) + CONTENT,
        extended(b"99999999999999999999999 path=f\n") + bytes(header()) + CONTENT,
        extended(b"12 size=1x\n") + bytes(header()) + CONTENT,
        extended(b"12 size=-1\n") + bytes(header()) + CONTENT,
        extended(b"27 size=9999999999999999999\n") + bytes(header()) + CONTENT,
        extended(b"13 mtime=1x\n") + bytes(header()) + CONTENT,
        extended(b"", size=b"77777777777\0"),
        extended(b"name", b"L"),
    ],
)
def test_broken_archive_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_all(data)


@pytest.mark.parametrize("kind", [b"V", b"M", b"D", b"N", b"?", b"\xff"])
def test_members_that_no_layer_holds_are_named(kind: bytes) -> None:
    with pytest.raises(BuildError, match="odd-name"):
        read_all(bytes(header(b"odd-name", type=kind)) + CONTENT)


def sparse_1_0(real: int, map_text: bytes, content: bytes = b"") -> bytes:
    body = map_text + bytes(padding(len(map_text))) + content
    records = b""
    for key, value in (
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.realsize", b"%d" % real),
    ):
        length = len(key) + len(value) + 3
        length += len(str(length + 2))
        records += b"%d %s=%s\n" % (length, key, value)
    return extended(records) + bytes(header(size=b"%011o\0" % len(body))) + body + bytes(padding(len(body)))


@pytest.mark.parametrize(
    ("real", "map_text"),
    [
        (100, b""),
        (100, b"1\n"),
        (100, b"1\n0\n"),
        (100, b"1\n0\nx\n"),
        (100, b"1\n0\n5"),
        (100, b"2\n50\n5\n0\n5\n"),
        (100, b"1\n98\n5\n"),
        (100, b"1\n0\n7\n"),
        (100, b"99999999\n"),
        (1 << 50, b"1\n0\n5\n"),
        (100, b"1" * 600),
    ],
)
def test_lying_map_of_holes_is_refused(real: int, map_text: bytes) -> None:
    with pytest.raises(LazylayerError):
        read_all(sparse_1_0(real, map_text, b"12345"))


def test_honest_map_of_holes_is_read() -> None:
    ((member, content),) = read_all(sparse_1_0(100, b"2\n10\n3\n90\n2\n", b"12345"))
    assert (member.size, member.sparse, content) == (100, [(10, 3), (90, 2)], b"12345")


@given(st.binary(max_size=40), st.integers(0, 3000))
def test_damage_is_an_error_or_harmless(noise: bytes, at: int) -> None:
    plain = tarfile.TarInfo("a/file")
    long = tarfile.TarInfo("x" * 150)
    data = bytearray(python_tar([(plain, b"content"), (long, b"more")], tarfile.PAX_FORMAT))
    data[at : at + len(noise)] = noise
    try:
        found = read_all(bytes(data))
    except LazylayerError:
        return
    assert all(member.stored == len(content) for member, content in found)


def test_archive_may_end_without_zeros() -> None:
    whole = bytes(header()) + CONTENT
    assert [member.name for member, _ in read_all(whole)] == [b"f"]
    assert [member.name for member, _ in read_all(whole[:600])] == [b"f"]
    assert [member.name for member, _ in read_all(whole + bytes(512))] == [b"f"]


def test_directory_by_its_name_is_one() -> None:
    ((member, _),) = read_all(bytes(header(b"old/", size=b"00000000000\0")))
    assert member.kind == "dir"


def test_links_have_no_content_whatever_they_say() -> None:
    found = read_all(bytes(header(type=b"1")) + bytes(header(b"g")) + CONTENT)
    assert [(member.name, content) for member, content in found] == [(b"f", b""), (b"g", b"12345")]


def test_device_that_no_header_holds_is_refused() -> None:
    with pytest.raises(BuildError, match="device"):
        make_header(TarMember(b"c", "char", dev_major=1 << 30))
