"""Layers, blobs and images made in memory, for tests that need no registry and no archive.

`layers` makes layers out of files, and blob sources that record each request and fail when told.
`plugin` is one plugin that resolves, opens, caches and mounts these layers. `images` opens an image
of them as a mount does, through the engine itself: `memory_image(layer).read(path)`.
"""

from __future__ import annotations

from lazylayer_testing.synthetic.images import MemoryImage, memory_image, until_quiet
from lazylayer_testing.synthetic.layers import (
    DictCache,
    MemorySource,
    SyntheticLayer,
    companions_of,
    inflate,
    make_blob,
)
from lazylayer_testing.synthetic.plugin import REFERENCE, MemoryPlugin, RecordedMount, SyntheticProgram

__all__ = [
    "REFERENCE",
    "DictCache",
    "MemoryImage",
    "MemoryPlugin",
    "MemorySource",
    "RecordedMount",
    "SyntheticLayer",
    "SyntheticProgram",
    "companions_of",
    "inflate",
    "make_blob",
    "memory_image",
    "until_quiet",
]
