"""A format that lazylayer has never heard of is converted, verified, taken over and mounted like its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import lazylayer_format_estargz
import lazylayer_resolver_layout
from lazylayer import hookimpl
from lazylayer.api.labels import TOC_DIGEST
from lazylayer.api.mounting import MountableTree, MountedTree
from lazylayer.api.oci import Platform, ResolvedImage, parse_reference
from lazylayer.api.settings import BackgroundSettings, CacheSettings, MountSettings, Settings
from lazylayer.errors import VerificationError
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager
from lazylayer_snapshotter_containerd.labels import annotation_labels, label_annotations, layer_source_labels
from lazylayer_testing.synthetic import DictCache, RecordedMount
from lazylayer_tool_images.conversion import Conversion, ConversionOptions, ConversionReport
from lazylayer_tool_images.verification import LayerVerification, verify_image
from synthetic.tiny_format import TINY_TOC, TinyFormat


class Machine:
    """A cache and a frontend in memory."""

    mounts: dict[str, RecordedMount]

    def __init__(self) -> None:
        self.mounts = {}

    @hookimpl
    def lazylayer_open_cache(self) -> DictCache:
        return DictCache()

    @hookimpl
    def lazylayer_mount_tree(self, tree: MountableTree, mountpoint: str) -> MountedTree:
        self.mounts[mountpoint] = RecordedMount(tree, mountpoint)
        return self.mounts[mountpoint]


class Program:
    """What a file system needs of a program."""

    def __init__(self, hooks: Hooks) -> None:
        self.hooks = hooks
        self.settings = Settings(
            background=BackgroundSettings(enabled=False),
            cache=CacheSettings(chunks="memory", ranges="memory"),
            mount=MountSettings(frontend="memory"),
        )


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def hooks(machine: Machine) -> Hooks:
    manager = make_manager()
    plugins = (lazylayer_format_estargz, lazylayer_resolver_layout, TinyFormat(), machine)
    for plugin, name in zip(plugins, ("estargz", "layout", "tiny", "memory"), strict=True):
        manager.register(plugin, name)
    return Hooks(manager)


@pytest.fixture
def image(hooks: Hooks, tmp_path: Path) -> str:
    """An image of one layer in the foreign format."""
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/os-release").write_text("ID=tiny\n")
    (tree / "data").write_bytes(bytes(range(256)) * 50)
    reference = f"oci:{tmp_path}/image:v"
    conversion = Conversion(hooks, parse_reference(reference), ConversionOptions(format="tiny"))
    conversion.convert_directory(tree, Platform("amd64", "linux"))
    return reference


def resolve(hooks: Hooks, reference: str) -> ResolvedImage:
    return hooks.resolve_image(parse_reference(reference), Platform("amd64", "linux"))


def convert(hooks: Hooks, source: str, destination: str, **options: Any) -> ConversionReport:
    conversion = Conversion(hooks, parse_reference(destination), ConversionOptions(**options))
    return conversion.convert_image(resolve(hooks, source))


def test_it_is_verified_as_a_lazy_layer(hooks: Hooks, image: str) -> None:
    (layer,) = verify_image(hooks, resolve(hooks, image))
    assert layer == LayerVerification(layer.digest, layer.size, "tiny", layer.chunks, ())
    assert layer.chunks >= 2


def test_it_is_taken_over_by_reuse(hooks: Hooks, image: str, tmp_path: Path) -> None:
    report = convert(hooks, image, f"oci:{tmp_path}/copy:v", reuse=True)
    (before,) = resolve(hooks, image).manifest.layers
    (after,) = resolve(hooks, f"oci:{tmp_path}/copy:v").manifest.layers
    assert [layer.reused for layer in report.layers] == [True]
    assert after == before


def test_its_annotations_do_not_outlive_its_bytes(hooks: Hooks, image: str, tmp_path: Path) -> None:
    convert(hooks, image, f"oci:{tmp_path}/other:v", format="estargz")
    (layer,) = resolve(hooks, f"oci:{tmp_path}/other:v").manifest.layers
    assert TOC_DIGEST in layer.annotations
    assert not [name for name in layer.annotations if "tiny" in name]


@pytest.fixture
def filesystem(hooks: Hooks) -> Iterator[Filesystem]:
    with closing(Filesystem(Program(hooks))) as filesystem:  # type: ignore[arg-type]
        yield filesystem


def labels_of(hooks: Hooks, image: str) -> dict[str, str]:
    """The labels of the image's layer, as a pull hands them to the snapshotter."""
    resolved = resolve(hooks, image)
    (layer,) = resolved.manifest.layers
    labels = annotation_labels({**layer.annotations, "org.example.other": "x"}, hooks.formats().annotations)
    return {**labels, **layer_source_labels(resolved.reference, layer.digest, [layer.digest])}


def test_it_is_mounted_by_labels(
    hooks: Hooks, machine: Machine, filesystem: Filesystem, image: str, tmp_path: Path
) -> None:
    labels = labels_of(hooks, image)
    assert all(name.startswith("containerd.io/snapshot/") for name in labels)
    assert not [name for name in labels if "other" in name]
    (tmp_path / "mnt").mkdir()
    filesystem.mount(str(tmp_path / "mnt"), label_annotations(labels))
    shown = machine.mounts[str(tmp_path / "mnt")].tree
    entry = shown.tree.lookup(b"etc/os-release")
    assert entry is not None
    assert shown.read(entry, 0, 100) == b"ID=tiny\n"


def test_labels_that_promise_another_table_are_refused(
    hooks: Hooks, filesystem: Filesystem, image: str, tmp_path: Path
) -> None:
    labels = labels_of(hooks, image)
    (promise,) = [name for name in labels if name.endswith(TINY_TOC)]
    (tmp_path / "mnt").mkdir()
    filesystem.mount(str(tmp_path / "mnt"), label_annotations(labels))
    filesystem.unmount(str(tmp_path / "mnt"))
    for wrong in ({**labels, promise: "sha256:" + "0" * 64}, {key: labels[key] for key in labels if key != promise}):
        with pytest.raises(VerificationError, match="table"):
            filesystem.mount(str(tmp_path / "mnt"), label_annotations(wrong))
