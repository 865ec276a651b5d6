from __future__ import annotations

import stat
from dataclasses import dataclass, field

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lazylayer.api.tree import Entry, Tree, clean_path
from lazylayer.errors import FormatError
from lazylayer.layers.overlay import merge_trees
from lazylayer_tarlayers.treebuilder import Landmarks, TreeBuilder

FILE, LINK, DIRECTORY = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o700


def file(mark: int = 0) -> Entry:
    return Entry(mode=FILE, size=mark)


def directory(mark: int = 0) -> Entry:
    return Entry(mode=DIRECTORY, uid=mark, children={})


LANDMARKS = Landmarks(b".prefetch.landmark", b".no.prefetch.landmark")


def build(*paths: bytes) -> Tree:
    """A tree of files, and of directories where a path ends with a slash."""
    builder = TreeBuilder(LANDMARKS)
    for mark, path in enumerate(paths, 1):
        builder.add(path, directory(mark) if path.endswith(b"/") else file(mark))
    return builder.finish()


def show(tree: Tree) -> dict[bytes, object]:
    """What can be seen of a tree: directories by their uid, files by inode, whiteouts as such."""
    seen: dict[bytes, object] = {}
    for path, entry in tree.walk():
        if entry.children is not None:
            seen[path] = ("directory", entry.uid, entry.implicit, entry.opaque)
        else:
            seen[path] = "whiteout" if entry.whiteout else ("file", entry.size, entry.nlink)
    return seen


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        (b"", b""),
        (b"/", b""),
        (b".", b""),
        (b"./", b""),
        (b"..", b""),
        (b"../../etc/passwd", b"etc/passwd"),
        (b"a/../../b", b"b"),
        (b"./a//b/./c/", b"a/b/c"),
        (b"/a", b"a"),
        (b"a/..b/.c/...", b"a/..b/.c/..."),
        (b"a/b/..", b"a"),
    ],
)
def test_path_is_cleaned_against_the_root(path: bytes, cleaned: bytes) -> None:
    assert clean_path(path) == cleaned


@given(st.lists(st.sampled_from([b"", b".", b"..", b"a", b"b.", b".c", b"..d"]), max_size=8))
def test_cleaned_path_names_nothing_outside(parts: list[bytes]) -> None:
    cleaned = clean_path(b"/".join(parts))
    assert all(part not in (b"", b".", b"..") for part in cleaned.split(b"/")) or not cleaned
    assert clean_path(cleaned) == cleaned


def test_names_that_no_file_system_shows_are_refused() -> None:
    for path in (b"x" * 256, b"d/" + b"x" * 256 + b"/f", b"a\0b", b"a\0/b", b"d/" * 9000 + b"f"):
        with pytest.raises(FormatError):
            TreeBuilder().add(path, file())
    TreeBuilder().add(b"x" * 255, file())


def test_root_must_be_a_directory() -> None:
    builder = TreeBuilder()
    with pytest.raises(FormatError, match="root"):
        builder.add(b"./", file())
    builder.add(b"target", file())
    with pytest.raises(FormatError, match="root"):
        builder.link(b"..", b"target")


def test_invented_directories_are_bounded() -> None:
    builder = TreeBuilder(max_implicit_directories=10)
    builder.add(b"/".join([b"d"] * 10) + b"/f", file())
    with pytest.raises(FormatError, match="directories"):
        builder.add(b"e/f", file())


# --- entries that replace others -----------------------------------------------------------------


@pytest.mark.parametrize("replaced", [b"a/b", b"a"])
def test_file_in_the_place_of_a_directory_ends_it(replaced: bytes) -> None:
    builder = TreeBuilder()
    builder.add(b"a/b/one", file())
    builder.add(replaced, file())
    with pytest.raises(FormatError, match="not a directory"):
        builder.add(b"a/b/two", file())


def test_hard_link_in_the_place_of_a_directory_ends_it() -> None:
    for target in (b"here", b"later"):
        builder = TreeBuilder()
        builder.add(b"here", file())
        builder.add(b"a/b/one", file())
        builder.link(b"a/b", target)
        with pytest.raises(FormatError, match="not a directory"):
            builder.add(b"a/b/two", file())


def test_directory_described_again_keeps_its_children() -> None:
    tree = build(b"d/", b"d/f", b"d/")
    assert show(tree)[b"d"] == ("directory", 3, False, False)
    assert b"d/f" in show(tree)


# --- hard links ----------------------------------------------------------------------------------


def test_links_in_any_order_are_one_inode() -> None:
    builder = TreeBuilder()
    for number in range(100, 0, -1):
        builder.link(b"l%d" % number, b"l%d" % (number - 1))
    builder.add(b"l0", file(7))
    builder.link(b"d/again", b"/./l50")
    tree = builder.finish()
    assert tree.inodes == 3
    assert tree.lookup(b"l100") is tree.lookup(b"d/again") is tree.lookup(b"l0")
    assert show(tree)[b"l0"] == ("file", 7, 102)


@pytest.mark.parametrize(
    ("links", "reason"),
    [
        ([(b"a", b"a")], "back to itself"),
        ([(b"a", b"b"), (b"b", b"c"), (b"c", b"a")], "back to itself"),
        ([(b"a", b"nowhere")], "nowhere"),
        ([(b"a", b"b"), (b"b", b"nowhere")], "nowhere"),
        ([(b"a", b"d")], "directory"),
        ([(b"a", b"/")], "not in the layer"),
    ],
)
def test_link_that_leads_nowhere_is_refused(links: list[tuple[bytes, bytes]], reason: str) -> None:
    builder = TreeBuilder()
    builder.add(b"d/f", file())
    for path, target in links:
        builder.link(path, target)
    with pytest.raises(FormatError, match=reason):
        builder.finish()


def test_replaced_link_needs_no_target() -> None:
    builder = TreeBuilder()
    builder.link(b"a/b", b"nowhere")
    builder.add(b"a", file(5))
    assert show(builder.finish())[b"a"] == ("file", 5, 1)


# --- against a naive model -----------------------------------------------------------------------


@dataclass
class ModelEntry:
    kind: str
    mark: int = 0
    target: tuple[bytes, ...] = ()


@dataclass
class Model:
    """The rules, told as simply as can be: a flat table of paths."""

    entries: dict[tuple[bytes, ...], ModelEntry] = field(default_factory=lambda: {(): ModelEntry("implicit")})

    def put(self, path: tuple[bytes, ...], entry: ModelEntry) -> None:
        for depth in range(len(path)):
            parent = self.entries.setdefault(path[:depth], ModelEntry("implicit"))
            if parent.kind not in ("directory", "implicit"):
                raise FormatError("parent")
        if not path and entry.kind != "directory":
            raise FormatError("root")
        if entry.kind != "directory":
            for known in [each for each in self.entries if each[: len(path)] == path]:
                del self.entries[known]
        self.entries[path] = entry

    def link(self, path: tuple[bytes, ...], target: tuple[bytes, ...]) -> None:
        known = self.entries.get(target)
        if known is not None and known.kind == "file":
            self.put(path, known)
        else:
            self.put(path, ModelEntry("link", target=known.target if known and known.kind == "link" else target))

    def finish(self) -> None:
        for path in [path for path, entry in self.entries.items() if entry.kind == "link"]:
            at, steps = path, 0
            while self.entries[at].kind == "link":
                at, steps = self.entries[at].target, steps + 1
                if at not in self.entries or steps > len(self.entries):
                    raise FormatError("link")
            if self.entries[at].kind != "file":
                raise FormatError("link to a directory")
            self.entries[path] = self.entries[at]

    def show(self) -> dict[bytes, object]:
        names: dict[int, int] = {}
        for entry in self.entries.values():
            names[id(entry)] = names.get(id(entry), 0) + 1
        return {
            b"/".join(path): ("file", entry.mark, names[id(entry)])
            if entry.kind == "file"
            else ("directory", entry.mark, entry.kind == "implicit", False)
            for path, entry in self.entries.items()
        }


paths = st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=4).map(tuple)
steps = st.lists(st.tuples(st.sampled_from(["file", "file", "directory", "link"]), paths, paths), max_size=25)


def run(target: TreeBuilder | Model, operations: list[tuple[str, tuple[bytes, ...], tuple[bytes, ...]]]) -> object:
    """What comes of it: what can be seen at the end, or the number of the step that was refused."""
    for number, (kind, path, other) in enumerate(operations, 1):
        try:
            if isinstance(target, Model):
                if kind == "link":
                    target.link(path, other)
                else:
                    target.put(path, ModelEntry(kind, number))
            elif kind == "link":
                target.link(b"/".join(path), b"/".join(other))
            else:
                target.add(b"/".join(path), file(number) if kind == "file" else directory(number))
        except FormatError:
            return number
    try:
        tree = target.finish()
    except FormatError:
        return "refused"
    return target.show() if isinstance(target, Model) else show(tree) if tree is not None else None


@given(steps)
def test_builder_does_as_the_model(operations: list[tuple[str, tuple[bytes, ...], tuple[bytes, ...]]]) -> None:
    assert run(TreeBuilder(), operations) == run(Model(), operations)


@given(st.lists(st.tuples(paths, st.booleans()), max_size=25))
def test_tree_is_numbered_sorted_and_counted(operations: list[tuple[tuple[bytes, ...], bool]]) -> None:
    builder = TreeBuilder()
    for parts, is_directory in operations:
        try:
            builder.add(b"/".join(parts), directory() if is_directory else file())
        except FormatError:
            return
    tree = builder.finish()
    listed = dict(tree.walk())
    assert sorted(entry.ino for entry in listed.values()) == list(range(1, tree.inodes + 1))
    assert tree.root.ino == 1
    for path, entry in listed.items():
        assert tree.lookup(path) is entry
        if entry.children is not None:
            assert list(entry.children) == sorted(entry.children)
            assert entry.nlink == 2 + sum(child.is_directory for child in entry.children.values())


# --- whiteouts and landmarks ---------------------------------------------------------------------


@pytest.mark.seed(11)
def test_whiteouts_become_devices_unless_the_name_is_there() -> None:
    tree = build(
        b".wh.gone", b"d/.wh.kept", b"d/kept", b"d/.wh..wh..opq", b"e/.wh.sub", b"e/sub/f", b".wh..wh.plnk", b".wh."
    )
    assert show(tree) == {
        b"": ("directory", 0, True, False),
        b"d": ("directory", 0, True, True),
        b"d/kept": ("file", 3, 1),
        b"e": ("directory", 0, True, False),
        b"e/sub": ("directory", 0, True, True),
        b"e/sub/f": ("file", 6, 1),
        b"gone": "whiteout",
    }
    gone = tree.lookup(b"gone")
    assert gone is not None and stat.S_ISCHR(gone.mode) and gone.rdev == 0


@pytest.mark.seed(11)
@pytest.mark.parametrize("name", [b".wh..", b".wh...", b"d/.wh...", b"d/.wh../"])
def test_whiteouts_of_what_is_not_a_name_are_refused(name: bytes) -> None:
    with pytest.raises(FormatError, match="whiteout"):
        build(name)


def test_landmarks_are_hidden_in_the_root_only() -> None:
    tree = build(b".prefetch.landmark", b".no.prefetch.landmark", b"d/.prefetch.landmark")
    assert set(show(tree)) == {b"", b"d", b"d/.prefetch.landmark"}
    assert tree.no_prefetch
    assert tree.prefetch_landmark is not None and tree.prefetch_landmark.size == 1


def test_names_are_no_landmarks_where_a_format_has_none() -> None:
    builder = TreeBuilder()
    builder.add(b".prefetch.landmark", file())
    tree = builder.finish()
    assert set(show(tree)) == {b"", b".prefetch.landmark"}
    assert tree.prefetch_landmark is None


# --- merging -------------------------------------------------------------------------------------

layer_names = st.sampled_from([b"a", b"b", b"b/", b".wh.a", b".wh.b", b".wh..wh..opq"])
layer_paths = st.tuples(st.lists(st.sampled_from([b"a", b"b"]), max_size=2), layer_names).map(
    lambda each: b"/".join([*each[0], each[1]])
)
layers = st.lists(st.lists(layer_paths, max_size=6, unique_by=clean_path), max_size=4)


class Pile:
    """What layers on top of each other show, told as the OCI image specification tells it."""

    def __init__(self) -> None:
        self.shown: dict[bytes, str] = {b"": "implicit"}

    def apply(self, number: int, paths: list[bytes]) -> None:
        for path in paths:
            head, _, name = path.rpartition(b"/")
            if name == b".wh..wh..opq":
                self._clear(head)
            elif name.startswith(b".wh."):
                hidden = clean_path(head + b"/" + name[4:])
                self._clear(hidden)
                self.shown.pop(hidden, None)
        for path in paths:
            if b".wh." in path:
                self._make_directory(clean_path(path).rpartition(b"/")[0], "implicit")
            elif path.endswith(b"/"):
                self._make_directory(path[:-1], f"directory {number}")
            else:
                self._make_directory(path.rpartition(b"/")[0], "implicit")
                self._clear(path)
                self.shown[path] = f"file {number}"

    def _clear(self, directory: bytes) -> None:
        prefix = directory + b"/" if directory else b""
        self.shown = {path: kind for path, kind in self.shown.items() if not path.startswith(prefix) or not path}

    def _make_directory(self, path: bytes, kind: str) -> None:
        if path:
            self._make_directory(path.rpartition(b"/")[0], "implicit")
        if kind != "implicit" or self.shown.get(path, "file").startswith("file"):
            self.shown[path] = kind


@given(layers)
@example([[b"a/"], [b".wh.a", b"a/b"]])  # hidden with its attributes, then made up for what lies in it
def test_merge_does_as_the_specification(layers: list[list[bytes]]) -> None:
    trees, pile = [], Pile()
    for number, layer in enumerate(layers):
        files = [path for path in layer if not path.endswith(b"/") and b".wh." not in path]
        # A file that is also a parent in the same layer does not concern merging.
        assume(not any(other.startswith(path + b"/") for path in files for other in layer))
        builder = TreeBuilder()
        for path in layer:
            builder.add(path, directory(number) if path.endswith(b"/") else file(number))
        trees.append(builder.finish())
        pile.apply(number, layer)
    shown = {}
    for path, entry in merge_trees(trees).walk():
        if entry.children is None:
            shown[path] = f"file {entry.size}"
        else:
            shown[path] = "implicit" if entry.implicit else f"directory {entry.uid}"
    assert shown == pile.shown


def test_merge_keeps_hard_links_and_says_the_layer() -> None:
    lower, upper = TreeBuilder(), TreeBuilder()
    lower.add(b"d/", directory(1))
    lower.add(b"d/f", file(1))
    upper.add(b"d/x", file(2))
    upper.link(b"y", b"d/x")
    merged = merge_trees([lower.finish(), upper.finish()])
    assert merged.lookup(b"y") is merged.lookup(b"d/x")
    one, two = merged.lookup(b"d/f"), merged.lookup(b"y")
    assert one is not None and two is not None
    assert (one.layer, two.layer, two.nlink) == (0, 1, 2)
    assert show(merged)[b"d"] == ("directory", 1, False, False)
