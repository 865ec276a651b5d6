"""An image of some files of random bytes, with small chunks, so that nearly every read is a request."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import lazylayer_format_estargz as estargz
from lazylayer_building import BuildOptions
from lazylayer_testing.registry import ImageLayer

__all__ = ["FILE_SIZE", "NAMES", "build", "write_files"]

NAMES = [f"file-{number:02}" for number in range(12)]
FILE_SIZE = 1 << 19
_CHUNK = 16 << 10


def write_files(directory: Path) -> Path:
    """Write the files that the image has, for readers to compare with, and return their directory."""
    directory.mkdir()
    choose = random.Random(0)
    for name in NAMES:
        (directory / name).write_bytes(choose.randbytes(FILE_SIZE))
    return directory


def build(directory: Path) -> ImageLayer:
    """Build the image's only layer."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as members:
        for name in NAMES:
            members.add(directory / name, name)
    archive.seek(0)
    layer = io.BytesIO()
    built = estargz.lazylayer_build_layer("estargz", archive, layer, BuildOptions(chunk_size=_CHUNK, level=1))
    return ImageLayer(layer.getvalue(), annotations=built.descriptor.annotations, diff_id=built.diff_id)
