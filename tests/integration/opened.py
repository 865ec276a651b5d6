"""An image that a program opens with the configuration of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lazylayer.api.oci import parse_reference
from lazylayer.layers.image import Image
from lazylayer.mounts.filesystem import Filesystem
from lazylayer.program import Program

__all__ = ["opened_image"]


@contextmanager
def opened_image(directory: Path, reference: str, configuration: str, layer: int | None = None) -> Iterator[Image]:
    """Open an image inside the `with` block, without prefetch and background fetching.

    :param configuration: more tables of the configuration file, which is written to `directory`.
    :param layer: the number of the only layer to open.
    """
    file = directory / "lazylayer.toml"
    file.write_text(
        f'root = "{directory}/root"\nrun = "{directory}/run"\n{configuration}\n'
        "[background]\nenabled = false\n[prefetch]\nenabled = false\n"
    )
    with Program.load(file) as program:
        filesystem = Filesystem(program)
        try:
            image = filesystem.open_image(parse_reference(reference), layer)
            yield image
            image.close()
        finally:
            filesystem.close()
