"""Facts about an opened layer, in the same words as `tree_facts` has them of a directory."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace

from lazylayer.api.layers import LayerContents
from lazylayer.api.tree import OPAQUE_XATTRS, Entry
from lazylayer_testing.facts.trees import KINDS, EntryFacts, TreeFacts


def layer_facts(contents: LayerContents, blob: bytes, *, unknown_mtimes: Collection[bytes] = ()) -> TreeFacts:
    """Return the facts of every entry of a layer whose bytes are `blob`; inflate and verify every file."""
    facts: TreeFacts = {}
    names_of: dict[int, list[bytes]] = defaultdict(list)
    for path, entry in contents.tree.walk():
        name = path or b"."
        facts[name] = _facts(contents, blob, entry)
        if name in unknown_mtimes:
            facts[name] = replace(facts[name], mtime=None)
        if entry.children is None and not entry.whiteout:
            names_of[entry.ino].append(name)
    for names in names_of.values():
        if len(names) > 1:
            for name in names:
                facts[name] = replace(facts[name], same_file=tuple(sorted(names)))
    return facts


def read_file(contents: LayerContents, blob: bytes, entry: Entry) -> bytes:
    """Return a file's content, each chunk checked against its digest."""
    table = contents.chunks
    parts = []
    for number in range(entry.first_chunk, entry.first_chunk + entry.chunk_count):
        chunk = table[number]
        start, end = table.member_range(table.member_of(number))
        assert start == chunk.offset
        data = contents.inflate(blob[start:end], chunk.inner + chunk.size, start)[chunk.inner :]
        seal = table.seal_of(table.member_of(number))
        assert hashlib.sha256(data if seal is None else blob[start:end]).digest() == (seal or chunk).digest
        parts.append(data)
    return b"".join(parts)


def _facts(contents: LayerContents, blob: bytes, entry: Entry) -> EntryFacts:
    if entry.whiteout:
        return EntryFacts(kind="whiteout")
    kind = stat.S_IFMT(entry.mode)
    is_file, is_symlink = kind == stat.S_IFREG, kind == stat.S_IFLNK
    xattrs = dict(entry.xattrs or {})
    if entry.opaque:
        xattrs.update(dict.fromkeys(OPAQUE_XATTRS, b"y"))
    return EntryFacts(
        kind=KINDS[kind],
        mode=stat.S_IMODE(entry.mode),
        uid=entry.uid,
        gid=entry.gid,
        size=entry.size if is_file or is_symlink else None,
        mtime=(entry.mtime + 500_000_000) // 1_000_000_000,
        device=(os.major(entry.rdev), os.minor(entry.rdev)) if kind in (stat.S_IFCHR, stat.S_IFBLK) else None,
        target=entry.target if is_symlink else None,
        links=entry.nlink if kind != stat.S_IFDIR else None,
        xattrs=tuple(sorted((os.fsdecode(name), value) for name, value in xattrs.items())),
        sha256=hashlib.sha256(read_file(contents, blob, entry)).hexdigest() if is_file else None,
    )
