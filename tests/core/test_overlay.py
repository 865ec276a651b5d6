"""Paths in layers that lie on each other, beside the same layers merged."""

from __future__ import annotations

import stat

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lazylayer.api.tree import Entry, Tree
from lazylayer.errors import FormatError
from lazylayer.layers.overlay import follow, merge_trees, names_in
from lazylayer_tarlayers.treebuilder import TreeBuilder

FILE, LINK, DIRECTORY = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755

Paths = list[tuple[bytes, bytes]]
"""Paths with what is there: `-` a file, `/` a directory, anything else a link to that."""


def layer(paths: Paths) -> Tree:
    """A tree of these; what cannot lie where something else lies already is left out. Files differ in their sizes."""
    builder = TreeBuilder()
    for number, (path, what) in enumerate(paths, 1):
        if what == b"-":
            entry = Entry(mode=FILE, size=number)
        elif what == b"/":
            entry = Entry(mode=DIRECTORY, children={})
        else:
            entry = Entry(mode=LINK, target=what.removeprefix(b"->"))
        try:
            builder.add(path, entry)
        except FormatError:
            continue
    return builder.finish()


def walked(tree: Tree, path: bytes) -> tuple[bytes, Entry] | None:
    """What path_resolution(7) says is at a path of one tree, with its real path; the slow and plain way."""
    root: list[bytes] = []
    at, rest, links = root, path.split(b"/"), 0
    while rest:
        name, *rest = rest
        entry = tree.lookup(b"/".join(at))
        if entry is None or not entry.is_directory:
            return None
        if name == b"..":
            at = at[:-1]
        elif name not in (b"", b"."):
            child = (entry.children or {}).get(name)
            if child is not None and child.is_symlink:
                links += 1
                if links > 40 or not child.target:
                    return None
                at = root if child.target.startswith(b"/") else at
                rest = [*child.target.split(b"/"), *rest]
            elif child is None:
                return None
            else:
                at = [*at, name]
    found = tree.lookup(b"/".join(at))
    return (b"/" + b"/".join(at), found) if found is not None else None


NAMES = st.sampled_from([b"a", b"b", b"c"])
WITHIN = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
MARKED = st.tuples(st.lists(NAMES, max_size=2), st.sampled_from([b".wh.a", b".wh.b", b".wh.c", b".wh..wh..opq"])).map(
    lambda parts: b"/".join([*parts[0], parts[1]])
)
STEPS = st.lists(st.sampled_from([b"a", b"b", b"c", b"..", b".", b""]), min_size=1, max_size=5).map(b"/".join)
WHAT = st.one_of(st.sampled_from([b"-", b"/", b"/"]), STEPS.map(lambda target: b"->" + target))
LAYERS = st.lists(
    st.lists(st.one_of(st.tuples(WITHIN, WHAT), st.tuples(MARKED, st.just(b"-"))), max_size=8), min_size=1, max_size=4
)


@given(layers=LAYERS, paths=st.lists(STEPS, min_size=1, max_size=8))
@settings(max_examples=400, deadline=None)
@example(layers=[[(b"a/b", b"-")], [(b"a", b"-")], [(b"a/c", b"-")]], paths=[b"a/b", b"a/c"])
@example(layers=[[(b"a/b", b"-")], [(b"a/.wh.b", b"-")], [(b"a/c", b"-")]], paths=[b"a/b", b"a/c", b"a"])
@example(layers=[[(b"a/b", b"-")], [(b".wh.a", b"-"), (b"a/c", b"-")]], paths=[b"a/b", b"a/c"])
@example(layers=[[(b"a", b"->b"), (b"b", b"->a")]], paths=[b"a", b"b/c"])
@example(layers=[[(b"a", b"-"), (b"b", b"->a/"), (b"c", b"->")]], paths=[b"a/", b"a/..", b"a/.", b"b", b"c", b"c/a"])
def test_what_is_found_is_what_the_merged_tree_has(layers: list[Paths], paths: list[bytes]) -> None:
    trees = [layer(each) for each in layers]
    merged = merge_trees(trees)
    for path in [*paths, *(found for found, _ in merged.walk())]:
        expected = walked(merged, path)
        alone = follow((merged,), path)
        found = follow(trees, path)
        assert sorted(names_in(trees, path)) == sorted((expected[1].children or ()) if expected is not None else ())
        if expected is None:
            assert found is None, path
            assert alone is None, path
            continue
        assert found is not None, path
        assert alone is not None, path
        assert (alone.path, alone.entry) == expected
        assert found.path == expected[0]
        assert found.entry is trees[found.tree].lookup(found.path)
        assert found.entry.is_directory == expected[1].is_directory
        if not found.entry.is_directory:
            assert (found.tree, found.entry.mode, found.entry.size) == (
                expected[1].layer,
                expected[1].mode,
                expected[1].size,
            )


@pytest.mark.parametrize(("links", "there"), [(40, True), (41, False)])
def test_as_many_links_are_followed_as_the_kernel_does(links: int, there: bool) -> None:
    chain = [(b"%d" % number, b"->%d" % (number + 1)) for number in range(links)]
    tree = layer([*chain, (b"%d" % links, b"-")])
    assert (follow((tree,), b"0") is not None) == there


def test_links_through_layers_lead_to_the_real_path() -> None:
    lower = layer([(b"opt/tool/bin/tool", b"-"), (b"usr/bin/python", b"->/etc/alternatives/python")])
    upper = layer([(b"etc/alternatives/python", b"->../../opt/tool/bin/tool")])
    found = follow([lower, upper], b"/usr/bin/python")
    assert found is not None
    assert (found.tree, found.path) == (0, b"/opt/tool/bin/tool")


def test_nothing_is_found_in_no_layers() -> None:
    assert follow([], b"/") is None
