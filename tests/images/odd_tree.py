"""Three layers that hold every oddity a layer can have and the Go tools can pack.

Left out, since the Go converter cannot carry them: names and link texts that are not UTF-8 (its TOC
is JSON), extended attributes without a value, and entries named like eStargz's own at the root.
"""

from __future__ import annotations

import random
import stat
from pathlib import Path

from images.tree_writer import TreeWriter, write_tar

CHUNK_SIZE = 4 * 1024 * 1024
"""Bytes of a full chunk, as the Go converter cuts files unless told otherwise."""

LONGEST_PATH = 4000
MANY_FILES = 5000

# struct vfs_cap_data, revision 2: effective, permitted CAP_NET_RAW (bit 13).
_CAP_NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")


def build_odd_layers(directory: Path) -> list[Path]:
    """Write the trees and their archives below `directory`; return the tar archives, lowest first.

    The second archive is in GNU tar's own format, the others are in the PAX format. The content is
    the same each time. Needs root.
    """
    return [build(directory) for build in (_build_base, _build_middle, _build_top)]


def _content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _build_base(directory: Path) -> Path:
    tree = TreeWriter(directory / "layer0")
    tree.directory(b".")
    _add_modes_and_owners(tree)
    _add_nodes(tree)
    _add_names(tree)
    _add_long_paths(tree)
    _add_sizes(tree)
    _add_links(tree)
    _add_xattrs(tree)
    _add_times(tree)
    _add_many_files(tree)
    _add_what_upper_layers_change(tree)
    tree.close()
    archive = directory / "layer0.tar"
    write_tar(archive, tree.root, tree.names, "pax")
    _append_duplicate(archive, directory / "layer0-again")
    return archive


def _add_modes_and_owners(tree: TreeWriter) -> None:
    tree.directory(b"modes")
    for mode in (0o4755, 0o2755, 0o6711, 0o1644, 0o7777, 0o000, 0o222, 0o400):
        tree.file(b"modes/file-%04o" % mode, b"#!/bin/sh\n", mode=mode)
    for mode in (0o1777, 0o2775, 0o700, 0o000):
        tree.directory(b"modes/directory-%04o" % mode, mode=mode)
    tree.directory(b"owners", owner=(1000, 1001))
    for number in (1, 65534, 2**21, 2**21 + 1, 2**31 - 1, 2**31):
        tree.file(b"owners/%d" % number, b"mine\n", owner=(number, number - 1))
    tree.file(b"owners/setuid", b"", mode=0o4755, owner=(2**21 + 7, 5))
    tree.symlink(b"owners/symlink", b"1", owner=(2**31, 77))


def _add_nodes(tree: TreeWriter) -> None:
    tree.directory(b"nodes")
    tree.node(b"nodes/null", stat.S_IFCHR, device=(1, 3), mode=0o666)
    tree.node(b"nodes/large-character", stat.S_IFCHR, device=(4095, 65536 + 3))
    tree.node(b"nodes/disk", stat.S_IFBLK, device=(8, 1), mode=0o660)
    tree.node(b"nodes/large-block", stat.S_IFBLK, device=(259, 1048575))
    tree.node(b"nodes/fifo", stat.S_IFIFO, mode=0o622)
    tree.hardlink(b"nodes/fifo-again", b"nodes/fifo")
    tree.hardlink(b"nodes/null-again", b"nodes/null")


def _add_names(tree: TreeWriter) -> None:
    tree.directory(b"names")
    names = ["composed-\u00e9", "combining-e\u0301", "日本語", "кириллица", "🦊", "\u202eright-to-left"]
    names += ["with space", "new\nline", "tab\t", "back\\slash", "'quote\"", "-leading-dash", "*?[x]"]
    names += ["...", "..two", "~", "#", "%s", "\x7f\x01", " ", "x.wh.y", ".wh", "UPPER", "upper"]
    # Meaningful at a layer's root only.
    names += [".prefetch.landmark", ".no.prefetch.landmark", "stargz.index.json"]
    # The lengths where the tar formats change how they hold a name, and the longest there is.
    names += ["l" * length for length in (88, 93, 94, 99, 100, 101, 155, 156, 254, 255)]
    names += ["界" * 85, "𝔘" * 63 + "abc"]
    for name in names:
        tree.file(b"names/" + name.encode(), b"I am " + name.encode())
    tree.directory(b"names/" + b"d" * 255)
    tree.file(b"names/" + b"d" * 255 + b"/" + b"f" * 255, b"both names are as long as can be\n")


def _add_long_paths(tree: TreeWriter) -> None:
    # Long names, and many levels: half of what Python's own recursion takes, so that it can clean up.
    for top, part in ((b"wide", b"w" * 255), (b"narrow", b"n" * 7)):
        path = top
        tree.directory(path)
        while len(path) + 1 + len(part) + 2 <= LONGEST_PATH:
            path += b"/" + part
            tree.directory(path)
        path += b"/" + b"f" * min(255, LONGEST_PATH - len(path) - 1)
        tree.file(path, b"as deep as it gets\n")


def _add_sizes(tree: TreeWriter) -> None:
    tree.directory(b"sizes")
    sizes = [0, 1, 511, 512, 513, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1]
    for size in sizes:
        tree.file(b"sizes/%d" % size, _content(size, size))
    tree.file(b"sizes/10MB", _content(10, 5_000_000) + b"compresses well " * 312_500)
    tree.file(b"sizes/zeros", bytes(3 * CHUNK_SIZE))
    tree.file(b"sizes/again-%d" % CHUNK_SIZE, _content(CHUNK_SIZE, CHUNK_SIZE))


def _add_links(tree: TreeWriter) -> None:
    tree.directory(b"links")
    tree.directory(b"links/elsewhere")
    tree.file(b"links/original", b"three names\n", mode=0o640, owner=(5, 6))
    tree.hardlink(b"links/elsewhere/second", b"links/original")
    tree.hardlink(b"links/third", b"links/original")
    tree.file(b"links/z-first-in-archive", _content(77, 5000))
    tree.hardlink(b"links/a-second-in-archive", b"links/z-first-in-archive")
    tree.file(b"links/empty", b"")
    tree.hardlink(b"links/empty-again", b"links/empty")
    tree.symlink(b"links/to-file", b"original")
    tree.hardlink(b"links/to-file-again", b"links/to-file")
    tree.symlink(b"links/to-directory", b"elsewhere")
    tree.symlink(b"links/absolute", b"/links/original")
    tree.symlink(b"links/outside", b"../../../../etc/passwd")
    tree.symlink(b"links/dangling", b"nowhere/at all")
    tree.symlink(b"links/self", b"self")
    tree.symlink(b"links/loop-a", b"loop-b")
    tree.symlink(b"links/loop-b", b"./loop-a")
    tree.symlink("links/fünf".encode(), "ziel-ü".encode())
    for length in (100, 101, 4000):
        tree.symlink(b"links/target-%d" % length, b"t" * length)


def _add_xattrs(tree: TreeWriter) -> None:
    tree.directory(b"xattrs", xattrs={"user.of": b"a directory", "trusted.of": b"a directory"})
    tree.file(b"xattrs/ping", b"ELF", mode=0o755, xattrs={"security.capability": _CAP_NET_RAW})
    tree.file(b"xattrs/binary", xattrs={"user.binary": bytes(range(256)), "user.newline": b"a=b\nc=d\n"})
    tree.file(b"xattrs/long", xattrs={"user.long": _content(3, 2000), "user." + "n" * 200: b"x"})
    tree.file(b"xattrs/many", xattrs={f"user.number-{n:02}": b"%d" % n for n in range(40)})
    tree.file(b"xattrs/trusted", xattrs={"trusted.secret": b"root sees this"})
    tree.file(b"xattrs/names", xattrs={"user.ключ": "значение".encode()})
    tree.symlink(b"xattrs/symlink", b"ping", xattrs={"trusted.on": b"a symlink"})
    tree.file(b"xattrs/shared", b"both have it", xattrs={"user.shared": b"yes"})
    tree.hardlink(b"xattrs/shared-again", b"xattrs/shared")


def _add_times(tree: TreeWriter) -> None:
    tree.directory(b"times")
    for second in (0, 1, -1, -86_400, 2**31, 2**32, 4_102_444_800):
        tree.file(b"times/%d" % second, mtime_ns=second * 10**9)
    tree.file(b"times/early-in-a-second", mtime_ns=1_234_567_890_250_000_000)
    tree.file(b"times/late-in-a-second", mtime_ns=1_234_567_890_750_000_000)


def _add_many_files(tree: TreeWriter) -> None:
    tree.directory(b"many")
    for number in range(MANY_FILES):
        tree.file(b"many/%05d" % number, b"%d\n" % number if number % 2 else b"")


def _add_what_upper_layers_change(tree: TreeWriter) -> None:
    tree.directory(b"removed")
    tree.file(b"removed/file", b"the top layer brings me back\n")
    tree.directory(b"removed/directory")
    tree.file(b"removed/directory/inner")
    tree.symlink(b"removed/symlink", b"file")
    tree.node(b"removed/fifo", stat.S_IFIFO)
    tree.file(b"removed/" + b"r" * 251, b"its whiteout has the longest name\n")
    tree.file(b"removed/one-name", b"loses a name\n")
    tree.hardlink(b"removed/other-name", b"removed/one-name")

    for name in (b"opaque", b"opaque/again", b"opaque-marked-last", b"opaque-implicit", b"opaque-twice"):
        tree.directory(name, mode=0o750, owner=(12, 34))
        tree.file(name + b"/from-base", b"base")
        tree.directory(name + b"/below")
        tree.file(name + b"/below/from-base", b"base")

    tree.directory(b"siblings")
    tree.file(b"siblings/file", b"base")
    tree.directory(b"siblings/directory", mode=0o700)
    tree.file(b"siblings/directory/from-base", b"base")
    tree.file(b"siblings/marked-last", b"base")

    tree.directory(b"replaced")
    tree.directory(b"replaced/directory-by-file")
    tree.file(b"replaced/directory-by-file/inner", b"gone")
    tree.file(b"replaced/file-by-directory", b"base")
    tree.directory(b"replaced/directory-by-symlink")
    tree.file(b"replaced/directory-by-symlink/inner", b"gone")
    tree.symlink(b"replaced/symlink-by-directory", b"/modes")
    tree.file(b"replaced/file-by-node", b"base")
    tree.directory(b"replaced/there-and-back")
    tree.file(b"replaced/there-and-back/from-base", b"must not come back")
    tree.file(b"replaced/content", b"base", xattrs={"user.layer": b"base", "user.only": b"base"})
    tree.file(b"replaced/linked", b"base")
    tree.hardlink(b"replaced/linked-again", b"replaced/linked")
    tree.directory(b"replaced/attributes", mode=0o711, owner=(3, 4), xattrs={"user.only": b"base"})
    tree.file(b"replaced/attributes/stays", b"base")

    tree.directory(b"gone")
    tree.file(b"gone/inner", b"a whiteout at the root hides me")

    tree.directory(b"parents", mode=0o711, owner=(7, 8), xattrs={"user.kept": b"yes"})
    tree.directory(b"parents/inner", mode=0o1777)
    tree.file(b"parents/inner/from-base", b"base")


def _append_duplicate(archive: Path, root: Path) -> None:
    """Write several entries of one name, of which the last counts."""
    tree = TreeWriter(root)
    tree.directory(b"sizes", packed=False)
    tree.file(b"sizes/1", b"the second entry of this name\n", mode=0o600)
    tree.directory(b"links", packed=False)
    tree.symlink(b"links/dangling", b"the second entry of this name")
    tree.close()
    write_tar(archive, root, tree.names, "pax", append=True)


def _build_middle(directory: Path) -> Path:
    tree = TreeWriter(directory / "layer1")
    tree.directory(b"removed")
    for name in (b"file", b"directory", b"symlink", b"fifo", b"r" * 251, b"other-name", b"never-was"):
        tree.whiteout(b"removed/" + name)

    tree.directory(b"opaque", mode=0o700, owner=(56, 78))
    tree.opaque(b"opaque")
    tree.file(b"opaque/from-middle", b"middle")
    tree.directory(b"opaque/below")
    tree.file(b"opaque/below/from-middle", b"middle")
    tree.directory(b"opaque-marked-last")
    tree.file(b"opaque-marked-last/from-middle", b"middle")
    tree.file(b"opaque-marked-last/from-base", b"middle has one of its own")
    tree.opaque(b"opaque-marked-last")
    tree.directory(b"opaque-implicit", packed=False)
    tree.opaque(b"opaque-implicit")
    tree.file(b"opaque-implicit/from-middle", b"middle")
    tree.directory(b"opaque-twice")
    tree.opaque(b"opaque-twice")
    tree.file(b"opaque-twice/from-middle", b"middle")

    tree.directory(b"siblings")
    tree.whiteout(b"siblings/file")
    tree.file(b"siblings/file", b"middle")
    tree.whiteout(b"siblings/directory")
    tree.directory(b"siblings/directory", mode=0o755)
    tree.file(b"siblings/directory/from-middle", b"middle")
    tree.file(b"siblings/marked-last", b"middle")
    tree.whiteout(b"siblings/marked-last")

    tree.directory(b"replaced")
    tree.file(b"replaced/directory-by-file", b"middle")
    tree.directory(b"replaced/file-by-directory")
    tree.file(b"replaced/file-by-directory/inner", b"middle")
    tree.symlink(b"replaced/directory-by-symlink", b"/names")
    tree.directory(b"replaced/symlink-by-directory")
    tree.file(b"replaced/symlink-by-directory/inner", b"middle")
    tree.node(b"replaced/file-by-node", stat.S_IFBLK, device=(7, 200))
    tree.file(b"replaced/there-and-back", b"a file for one layer")
    tree.file(b"replaced/content", b"middle, and longer", mode=0o4711, owner=(9, 9))
    tree.file(b"replaced/linked", b"middle")
    tree.directory(b"replaced/attributes", mode=0o2750, owner=(5, 6))

    _add_missing_parents(tree)
    _add_long_gnu_entries(tree)
    tree.close()
    archive = directory / "layer1.tar"
    write_tar(archive, tree.root, tree.names, "gnu")
    return archive


def _add_missing_parents(tree: TreeWriter) -> None:
    for name in (b"parents", b"parents/inner", b"nowhere", b"nowhere/else", b"nowhere/else/inner"):
        tree.directory(name, packed=False)
    tree.file(b"parents/inner/from-middle", b"middle")
    tree.file(b"nowhere/else/inner/from-middle", b"middle")


def _add_long_gnu_entries(tree: TreeWriter) -> None:
    tree.directory(b"gnu", owner=(2**31, 2**21))
    tree.file(b"gnu/" + b"g" * 255, b"a long name in GNU's way", owner=(2**21 + 3, 2**31))
    tree.file(b"gnu/" + "ü".encode() * 127, b"the same, not ASCII")
    tree.symlink(b"gnu/long-target", b"t/" * 1500)
    tree.hardlink(b"gnu/another", b"gnu/" + b"g" * 255)
    tree.file(b"gnu/chunk", _content(8, CHUNK_SIZE + 1), mtime_ns=-(10**9))


def _build_top(directory: Path) -> Path:
    tree = TreeWriter(directory / "layer2")
    tree.directory(b".", mode=0o711, owner=(0, 3))
    tree.directory(b"removed", mode=0o770)
    tree.file(b"removed/file", b"back again\n")
    tree.directory(b"opaque-twice", xattrs={"user.layer": b"top"})
    tree.opaque(b"opaque-twice")
    tree.file(b"opaque-twice/from-top", b"top")
    tree.directory(b"opaque", packed=False)
    tree.whiteout(b"opaque/from-middle")
    tree.file(b"opaque/from-base", b"top")
    tree.directory(b"replaced")
    tree.directory(b"replaced/there-and-back")
    tree.file(b"replaced/there-and-back/from-top", b"top")
    tree.directory(b"siblings")
    tree.whiteout(b"siblings/directory")
    tree.directory(b"nowhere", mode=0o700)
    tree.whiteout(b"nowhere/else")
    tree.file(b"xattr-of-top", xattrs={"user.layer": b"top", "security.capability": _CAP_NET_RAW})
    tree.whiteout(b"gone")
    tree.directory(b"modes", packed=False)
    tree.whiteout(b"modes/file-7777")
    tree.close()
    archive = directory / "layer2.tar"
    write_tar(archive, tree.root, tree.names, "pax")
    return archive
