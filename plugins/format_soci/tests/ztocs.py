"""Write zTOCs for tests, as simply as can be: each table with a vtable of its own, nothing shared.

Layers are concatenated gzip members, each of which is a span; so no checkpoint needs a window.
"""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Sequence

from lazylayer.api.oci import sha256_digest
from lazylayer_tarlayers.tarmember import XATTR
from lazylayer_tarlayers.tarreader import TarReader

__all__ = ["pack", "ztoc_of"]

_SIZES = {"b": 1, "i": 4, "I": 4, "q": 8}
_WINDOW = 32 * 1024
_HEADER = 10
"""Bytes of a gzip header without names."""

Field = tuple[str, object]
"""A kind as in the module struct and a number; or `r` and a string, a table, or a list of either."""


class _Table(tuple[Field, ...]):
    """The fields of a table."""


class _Buffer:
    def __init__(self, root: _Table) -> None:
        self.data = bytearray(4)
        self._refer(0, root)

    def _refer(self, place: int, target: object) -> None:
        struct.pack_into("<I", self.data, place, self._write(target) - place)

    def _write(self, target: object) -> int:
        self.data += bytes(-len(self.data) % 8)
        if isinstance(target, _Table):
            return self._write_table(target)
        at = len(self.data)
        if isinstance(target, bytes):
            self.data += struct.pack("<I", len(target)) + target + b"\0"
        else:
            assert isinstance(target, list)
            self.data += struct.pack("<I", len(target)) + bytes(4 * len(target))
            for number, each in enumerate(target, 1):
                self._refer(at + 4 * number, each)
        return at

    def _write_table(self, fields: _Table) -> int:
        offsets, size = [], 4
        for kind, _ in fields:
            offsets.append(size)
            size += _SIZES.get(kind, 4)
        start = len(self.data)
        self.data += struct.pack(f"<{2 + len(offsets)}H", 4 + 2 * len(offsets), size, *offsets)
        at = len(self.data)
        self.data += struct.pack("<i", at - start) + bytes(size - 4)
        for (kind, value), offset in zip(fields, offsets, strict=True):
            if kind == "r":
                self._refer(at + offset, value)
            else:
                struct.pack_into(f"<{kind}", self.data, at + offset, value)
        return at


def pack(archive: bytes, span_size: int) -> bytes:
    """Return the archive as a layer: each span a gzip member."""
    pieces = [archive[at : at + span_size] for at in range(0, len(archive), span_size)]
    return b"".join(gzip.compress(piece, 1, mtime=0) for piece in pieces)


def ztoc_of(archive: bytes, span_size: int) -> bytes:
    """Return the zTOC of the layer that `pack` makes."""
    blob = pack(archive, span_size)
    checkpoints: list[tuple[int, int]] = []
    end = 0
    for at in range(0, len(archive), span_size):
        checkpoints.append((end + _HEADER, at))
        end += len(gzip.compress(archive[at : at + span_size], 1, mtime=0))
    ends = [start for start, _ in checkpoints[1:]] + [len(blob)]
    digests = [sha256_digest(blob[start:end]).encode() for (start, _), end in zip(checkpoints, ends, strict=True)]
    zinfo = struct.pack("<Iq", len(checkpoints), span_size)
    zinfo += b"".join(struct.pack("<qqB", *each, 0) + bytes(_WINDOW) for each in checkpoints)
    info: Sequence[Field] = (("b", 1), ("i", len(checkpoints) - 1), ("r", digests), ("r", zinfo))
    toc = _Table([("r", _files(archive))])
    sizes: Sequence[Field] = (("q", len(blob)), ("q", len(archive)))
    root = _Table([("r", b"0.9"), ("r", b"a test"), *sizes, ("r", toc), ("r", _Table(info))])
    return bytes(_Buffer(root).data)


def _files(archive: bytes) -> list[_Table]:
    stream = io.BytesIO(archive)
    files = []
    for member in TarReader(stream):
        records = [_Table([("r", XATTR + key), ("r", value)]) for key, value in (member.xattrs or {}).items()]
        seconds, fraction = divmod(member.mtime, 1_000_000_000)
        files.append(
            _Table(
                [
                    *(("r", member.name), ("r", member.kind.encode()), ("q", stream.tell()), ("q", member.size)),
                    *(("r", member.link_name), ("q", member.mode), ("I", member.uid), ("I", member.gid)),
                    *(("r", member.user_name), ("r", member.group_name), ("r", _time(seconds, fraction))),
                    *(("q", member.dev_major), ("q", member.dev_minor), ("r", records)),
                ]
            )
        )
    return files


def _time(seconds: int, fraction: int) -> bytes:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09}Z".encode()
