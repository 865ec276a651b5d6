"""The program of a real image, and all that it is linked with, are here before anything reads them."""

from __future__ import annotations

import io
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from images.python_image import PYTHON
from lazylayer.api.oci import parse_reference
from lazylayer.layers.image import Image
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.program import Program
from lazylayer_building import BuildOptions
from lazylayer_snapshotter_containerd.labels import layer_source_labels
from lazylayer_testing.registry import Fault, ImageLayer, ScriptedRegistry
from lazylayer_tool_images.building import build_layer

pytestmark = pytest.mark.fuse

NAME = "tests/python"
MOST_REQUESTS = 6
"""For the program, its libraries, and theirs, wave after wave."""


@pytest.fixture(scope="module", params=["estargz", "zstdchunked"])
def registry(
    request: pytest.FixtureRequest, python_layers: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as registry, program(registry, tmp_path_factory.mktemp("builder")) as builder:
        layers = []
        for archive in python_layers:
            with archive.open("rb") as source:
                built = io.BytesIO()
                layer = build_layer(builder.hooks, request.param, source, built, BuildOptions())
            descriptor = layer.descriptor
            layers.append(ImageLayer(built.getvalue(), descriptor.media_type, descriptor.annotations, layer.diff_id))
        config = {"config": {"Cmd": [Path(PYTHON).name, "-c", "pass"], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]}}
        registry.content.add_image(NAME, "latest", layers, config)
        yield registry


@contextmanager
def program(registry: ScriptedRegistry, directory: Path) -> Iterator[Program]:
    settings = [
        f"root={directory}/root",
        f"run={directory}/run",
        f'resolve.plain_http=["{registry.host}"]',
        "mount.frontend=frontend_fuse",
        "background.enabled=false",
    ]
    with Program.load(overrides=settings) as made:
        yield made


def linked() -> set[str]:
    """What the program of this machine, which the image has a copy of, is linked with; its loader too."""
    said = subprocess.run(["ldd", PYTHON], check=True, capture_output=True, text=True).stdout
    return {PYTHON, *re.findall(r"(?:=> |^\s+)(/\S+)", said, re.MULTILINE)}


def until_prefetched() -> None:
    pause = threading.Event()
    behind = ("lazylayer-neighbours", "lazylayer-image", "lazylayer-prefetch")
    while [each for each in threading.enumerate() if each.name in behind]:
        pause.wait(0.01)


def check(registry: ScriptedRegistry, image: Image) -> None:
    """Before the first read, all that the program needs to start can be read without the registry."""
    fetched = [each for each in registry.requests_of("blob") if "range" in {name.lower() for name in each.headers}]
    opening = 2 * len(image.layers)
    assert len(fetched) <= opening + MOST_REQUESTS
    assert registry.blob_bytes_sent < sum(layer.blob.size for layer in image.layers) * 0.8
    registry.script(Fault(status=404))
    try:
        assert len(linked()) >= 4
        for path in linked():
            found = image.find(os.fsencode(path))
            assert found is not None, path
            assert found.read(0, found.entry.size) == Path(path).read_bytes(), path
    finally:
        registry.forget_rules()


def test_of_an_image_that_is_mounted_by_hand(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.forget_requests()
    (tmp_path / "there").mkdir()
    with program(registry, tmp_path) as made:
        filesystem = Filesystem(made)
        try:
            reference = parse_reference(registry.reference(NAME))
            filesystem.mount_image(str(tmp_path / "there"), reference)
            until_prefetched()
            image = filesystem.open_image(reference)
            check(registry, image)
            image.close()
        finally:
            filesystem.close()


def test_of_an_image_whose_layers_containerd_mounts(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.forget_requests()
    with program(registry, tmp_path) as made:
        filesystem = Filesystem(made)
        try:
            reference = parse_reference(registry.reference(NAME))
            image = filesystem.open_image(reference)
            layers = image.resolved.manifest.layers
            for number, layer in enumerate(layers):
                labels = layer_source_labels(reference, layer.digest, [each.digest for each in layers[number:]])
                mountpoint = tmp_path / str(number)
                mountpoint.mkdir()
                filesystem.mount(str(mountpoint), {**(layer.annotations or {}), **labels})
            until_prefetched()
            check(registry, image)
            image.close()
        finally:
            filesystem.close()
