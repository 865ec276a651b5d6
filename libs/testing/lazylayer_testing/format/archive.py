"""An archive of everything that a layer may hold, and the facts of the tree that it makes."""

from __future__ import annotations

import hashlib
import io
import random
import stat
import tarfile
from collections.abc import Callable
from typing import NamedTuple

from lazylayer.api.tree import Entry

__all__ = ["Facts", "facts_of", "odd_archive", "odd_facts", "small_archive"]

_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


class Facts(NamedTuple):
    """The facts of one path; times in seconds, since some formats keep no more."""

    mode: int
    uid: int
    gid: int
    mtime: int
    target: bytes
    device: tuple[int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]
    links: int
    sha256: str
    marks: tuple[bool, bool] = (False, False)
    """Whiteout, and opaque."""


class _Member(NamedTuple):
    name: bytes
    kind: bytes = tarfile.REGTYPE
    content: bytes = b""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    mtime: float = 1_600_000_000
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


def _content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - no secret


_MEMBERS = (
    _Member(b"bin/", tarfile.DIRTYPE, mode=0o755),
    _Member(b"bin/su", content=b"#!" + _content(1, 3000), mode=0o4755),
    _Member(b"bin/wall", content=_content(2, 10_000), mode=0o2755, owner=(0, 5)),
    _Member(b"tmp/", tarfile.DIRTYPE, mode=0o1777),
    _Member(b"bin/login", tarfile.SYMTYPE, mode=0o777, target=b"su"),
    _Member(b"broken", tarfile.SYMTYPE, mode=0o777, target=b"../../nowhere/" + b"n" * 120),
    _Member(b"empty", mode=0),
    _Member(b"one-byte", content=b"1"),
    _Member(b"zeros", content=bytes(200_000)),
    *(_Member(b"sizes/%d" % size, content=_content(size, size)) for size in (511, 512, 513, 65_535, 65_536, 65_537)),
    _Member(b"large", content=_content(3, 1_500_000), owner=(70_000, 3_000_000_000)),
    _Member(b"dev/null", tarfile.CHRTYPE, mode=0o666, device=(1, 3)),
    _Member(b"dev/sda", tarfile.BLKTYPE, mode=0o660, device=(8, 0)),
    _Member(b"run/pipe", tarfile.FIFOTYPE, mode=0o600),
    _Member(b"old", content=b"old", mtime=1),
    _Member(b"new", content=b"new", mtime=4_000_000_000),
    _Member(b"attributes", content=b"x", xattrs=((b"user.empty", b""), (b"user.name", b"value \xc3\xa9"))),
    _Member("ünïcode/日本/\U0001f600".encode(), content=b"u"),
    _Member(b"not-utf-8-\xff\xfe", content=b"bytes"),
    _Member(b"spaces and\nnewlines\t", content=b"s"),
    _Member(b"long/" + b"/".join([b"d" * 60] * 20) + b"/f", content=b"deep"),
    _Member(b"n" * 255, content=b"longest"),
    _Member(b"./dotted//path/../here", content=b"dots"),
    _Member(b"no/parents/described", content=b"np"),
    _Member(b"hidden/.wh.gone"),
    _Member(b"opaque/", tarfile.DIRTYPE, mode=0o750),
    _Member(b"opaque/.wh..wh..opq"),
    _Member(b"opaque/own", content=b"own"),
    _Member(b"linked/a", content=_content(4, 5000)),
    _Member(b"linked/b", tarfile.LNKTYPE, target=b"linked/a"),
    _Member(b"linked/c", tarfile.LNKTYPE, target=b"./linked/b"),
    _Member(b"twice", content=b"first version"),
    _Member(b"twice", content=b"second"),
    _Member(b"was-a-file", content=b"f"),
    _Member(b"was-a-file", tarfile.SYMTYPE, mode=0o777, target=b"twice"),
)


def odd_archive() -> bytes:
    """Return the archive, in the PAX format; the same bytes each time."""
    return _write(_MEMBERS)


def small_archive() -> bytes:
    """Return an archive of few members, for checks that open thousands of layers."""
    chosen = {b"bin/", b"bin/su", b"bin/login", b"empty", b"dev/null", b"attributes", b"sizes/513"}
    return _write(tuple(member for member in _MEMBERS if member.name in chosen))


def _write(members: tuple[_Member, ...]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for member in members:
            info = tarfile.TarInfo(member.name.decode(errors="surrogateescape"))
            info.type, info.mode, info.mtime, info.size = member.kind, member.mode, member.mtime, len(member.content)
            info.uid, info.gid = member.owner
            info.linkname = member.target.decode(errors="surrogateescape")
            info.devmajor, info.devminor = member.device
            info.pax_headers = {
                f"SCHILY.xattr.{name.decode()}": value.decode(errors="surrogateescape") for name, value in member.xattrs
            }
            archive.addfile(info, io.BytesIO(member.content))
    return out.getvalue()


def odd_facts() -> dict[bytes, Facts]:
    """Return the facts of every path that the archive describes, by the rules of tar and of OCI layers."""
    found: dict[bytes, Facts] = {}
    for member in _MEMBERS:
        path = _clean(member.name)
        head, _, name = path.rpartition(b"/")
        if name == b".wh..wh..opq":
            found[head] = found[head]._replace(marks=(False, True))
        elif name.startswith(b".wh."):
            found[head + b"/" + name[4:]] = Facts(stat.S_IFCHR, 0, 0, 0, b"", (0, 0), (), 1, "", (True, False))
        elif member.kind == tarfile.LNKTYPE:
            target = found[_clean(member.target)]
            group = [path, *(each for each, facts in found.items() if facts.sha256 and facts == target)]
            found |= dict.fromkeys(group, target._replace(links=len(group)))
        else:
            found[path] = _facts(member)
    return found


def _facts(member: _Member) -> Facts:
    regular = member.kind == tarfile.REGTYPE
    return Facts(
        _KINDS[member.kind] | member.mode,
        *member.owner,
        int(member.mtime),
        member.target,
        member.device,
        tuple(sorted(member.xattrs)),
        0 if member.kind == tarfile.DIRTYPE else 1,
        hashlib.sha256(member.content).hexdigest() if regular else "",
    )


def facts_of(entry: Entry, read: Callable[[Entry], bytes]) -> Facts:
    """Return the facts of an entry that a format shows; `read` returns a file's content."""
    import os

    if entry.whiteout:
        return Facts(stat.S_IFCHR, 0, 0, 0, b"", (0, 0), (), 1, "", (True, False))
    device = (os.major(entry.rdev), os.minor(entry.rdev)) if entry.rdev else (0, 0)
    return Facts(
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime // 1_000_000_000,
        entry.target,
        device,
        tuple(sorted((entry.xattrs or {}).items())),
        0 if entry.is_directory else entry.nlink,
        hashlib.sha256(read(entry)).hexdigest() if entry.is_file else "",
        (False, entry.opaque),
    )


def _clean(name: bytes) -> bytes:
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)
