"""Images in memory, opened as a mount opens them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lazylayer.api.oci import Platform
from lazylayer.api.settings import BackgroundSettings, FetchSettings, Settings
from lazylayer.layers import Image, LayerStore, open_image
from lazylayer_testing.synthetic.layers import SyntheticLayer
from lazylayer_testing.synthetic.plugin import REFERENCE, MemoryPlugin, SyntheticProgram

__all__ = ["MemoryImage", "memory_image", "until_quiet"]

_SETTINGS = Settings(background=BackgroundSettings(enabled=False), fetch=FetchSettings(window_min=1, window_max=1))


class MemoryImage:
    """An open image, and readers of its files."""

    def __init__(self, plugin: MemoryPlugin, image: Image, plugins: Sequence[object] = ()) -> None:
        self.plugin = plugin
        self.plugins = plugins
        self.image = image

    def requests(self) -> int:
        """Return the number of requests for bytes of its layers."""
        return sum(len(source.asked) for source in self.plugin.sources.values())

    def forget_requests(self) -> None:
        """Count requests from here on."""
        for source in self.plugin.sources.values():
            source.asked.clear()

    def fail(self, error: Exception | None) -> None:
        """Make every request fail with this error from now on, or none."""
        for source in self.plugin.sources.values():
            source.fail = lambda _: error

    def check_files(self) -> None:
        """Read every file of every layer, and raise AssertionError if one is not as it was made."""
        for layer in self.image.layers:
            made = self.plugin.layers[layer.digest]
            for name, entry in made.entries.items():
                assert layer.read(entry, 0, entry.size) == made.files[name], name

    def read(self, path: bytes, offset: int = 0, size: int = 1 << 30) -> bytes:
        """Read a file as a container would."""
        found = self.image.find(path)
        assert found is not None, path
        return found.read(offset, size)

    def is_here(self, path: bytes) -> bool:
        """Return True if all chunks of a file are in the cache."""
        found = self.image.find(path)
        assert found is not None, path
        kept, digest, entry = self.plugin.caches["chunks"].values, found.layer.contents.chunks.digest, found.entry
        chunks = range(entry.first_chunk, entry.first_chunk + entry.chunk_count)
        return all(f"sha256:{digest(chunk).hex()}" in kept for chunk in chunks)


@contextmanager
def memory_image(
    *layers: SyntheticLayer, config: Mapping[str, Any] | None = None, plugins: Sequence[object] = ()
) -> Iterator[MemoryImage]:
    """Open an image of these layers, lowest first, with read-ahead and background fetching switched off.

    :param config: the `config` object of the image config.
    :param plugins: more plugins, which are asked before the one that keeps the image.
    """
    plugin = MemoryPlugin(list(layers))
    plugin.config = dict(config or {})
    program = SyntheticProgram(plugin, _SETTINGS, plugins)
    store = LayerStore(program.settings, program.hooks)
    resolved = program.hooks.resolve_image(REFERENCE, Platform("amd64", "linux"))
    image = open_image(store, resolved)
    for layer in image.layers:
        layer.windows.find_siblings()
    try:
        yield MemoryImage(plugin, image, plugins)
    finally:
        image.close()
        store.close()


def until_quiet() -> None:
    """Wait for every thread that fetches or follows a program."""
    pause = threading.Event()
    fetching = ("lazylayer-fetch", "lazylayer-files", "lazylayer-entrypoint")
    while [each for each in threading.enumerate() if each.name in fetching]:
        pause.wait(0.005)
