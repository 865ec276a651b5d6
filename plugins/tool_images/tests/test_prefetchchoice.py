from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lazylayer.api.tree import Entry, Tree, clean_path
from lazylayer.errors import BuildError
from lazylayer.layers.overlay import merge_trees
from lazylayer_tarlayers.treebuilder import TreeBuilder
from lazylayer_tool_images.prefetchchoice import Name, PrefetchChoice, names_in_archive, names_in_tree

Names = dict[bytes, bool]
"""Paths in a layer, and whether each is a directory."""


def choose(layers: Sequence[Sequence[Name]], *globs: bytes, paths: Sequence[bytes] = ()) -> list[list[bytes]]:
    """What is chosen of each layer, lowest first."""
    choice = PrefetchChoice(paths, globs, len(layers))
    return [choice.choose(number, layers[number]) for number in reversed(range(len(layers)))][::-1]


def names(*paths: bytes) -> list[Name]:
    return [(clean_path(path), path.endswith(b"/")) for path in paths]


@pytest.mark.parametrize(
    ("upper", "below"),
    [
        ([b"d/other"], [b"d/f", b"g"]),
        ([b"d/f"], [b"g"]),
        ([b"d/f/"], [b"g"]),
        ([b"d/f/x"], [b"g"]),
        ([b"d/.wh.f"], [b"g"]),
        ([b".wh.d"], [b"g"]),
        ([b"d"], [b"g"]),
        ([b"d/.wh..wh..opq"], [b"g"]),
        ([b".wh..wh..opq"], []),
        ([b"d/"], [b"d/f", b"g"]),
    ],
)
def test_what_an_upper_layer_hides_is_not_chosen(upper: list[bytes], below: list[bytes]) -> None:
    assert choose([names(b"d/", b"d/f", b"g"), names(*upper)], b"**")[0] == below


def test_layer_hides_nothing_of_itself() -> None:
    assert choose([names(b"f", b"d/g"), names(b".wh.f", b"f", b"d/.wh..wh..opq", b"d/g")], b"*", b"d/g") == [
        [],
        [b"f", b"d/g"],
    ]


def test_paths_of_no_layer_come_first_where_they_are_shown() -> None:
    layers = [names(b"a", b"b", b"lib"), names(b"b")]
    assert choose(layers, b"a", paths=[b"b", b"lib/x"]) == [[b"lib/x", b"a"], [b"b", b"lib/x"]]


def test_layers_wait_for_those_above() -> None:
    choice = PrefetchChoice([], [b"*"], 3)
    with ThreadPoolExecutor(2) as threads:
        lower = [threads.submit(choice.choose, number, names(b"f", b"%d" % number)) for number in (0, 1)]
        assert not any(each.done() for each in lower)
        assert choice.choose(2, names(b"f")) == [b"f"]
        assert [each.result(20) for each in lower] == [[b"0"], [b"1"]]


def test_nobody_waits_when_it_is_abandoned() -> None:
    choice = PrefetchChoice([], [b"*"], 2)
    with ThreadPoolExecutor(1) as threads:
        lower = threads.submit(choice.choose, 0, names(b"f"))
        choice.abandon()
        with pytest.raises(BuildError):
            lower.result(20)


def archive_of(layer: Names) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, is_directory in layer.items():
            member = tarfile.TarInfo("./" + path.decode())
            member.type = tarfile.DIRTYPE if is_directory else tarfile.REGTYPE
            tar.addfile(member)
    return out.getvalue()


def tree_of(layer: Names) -> Tree:
    builder = TreeBuilder()
    for path, is_directory in layer.items():
        mode = stat.S_IFDIR if is_directory else stat.S_IFREG
        builder.add(path, Entry(mode, children={} if is_directory else None))
    return builder.finish()


PARTS = st.sampled_from([b"a", b"b", b"c", b".wh.a", b".wh.b", b".wh..wh..opq"])


@st.composite
def layers_of_names(draw: st.DrawFn) -> list[Names]:
    layers = []
    for _ in range(draw(st.integers(1, 4))):
        layer: Names = {}
        for path in draw(st.lists(st.lists(PARTS, min_size=1, max_size=3), max_size=6)):
            # Only directories that are no whiteouts hold anything, and nothing is both.
            parents = [b"/".join(path[:depth]) for depth in range(1, len(path))]
            whole = b"/".join(path)
            if any(part.startswith(b".wh.") for part in path[:-1]) or whole in layer:
                continue
            if any(layer.get(parent) is False for parent in parents):
                continue
            if any(known.startswith(whole + b"/") for known in layer):
                continue
            layer[whole] = not path[-1].startswith(b".wh.") and draw(st.booleans())
        layers.append(layer)
    return layers


@given(layers_of_names(), st.booleans())
@example([{b"a": False}, {b"a/.wh..wh..opq": False}], False)
def test_choice_is_what_the_merged_tree_shows(layers: list[Names], from_trees: bool) -> None:
    trees = [tree_of(layer) for layer in layers]
    if from_trees:
        listed = [list(names_in_tree(tree)) for tree in trees]
    else:
        listed = [list(names_in_archive(io.BytesIO(archive_of(layer)))) for layer in layers]
    shown: list[set[bytes]] = [set() for _ in layers]
    for path, entry in merge_trees(trees).walk():
        if not entry.is_directory:
            shown[entry.layer].add(path)
    chosen = choose(listed, b"**")
    assert [set(each) for each in chosen] == shown
