"""The base of the checks of formats: the plugin behind its hooks, and layers that it built."""

from __future__ import annotations

import gzip
import hashlib
import io
import threading
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import pytest

from lazylayer.api.layers import FormatInfo, LayerContents
from lazylayer.api.oci import Descriptor
from lazylayer.api.tree import Entry
from lazylayer.errors import LazylayerError, PluginError
from lazylayer.plugin.hooks import Hooks
from lazylayer.plugin.registry import make_manager
from lazylayer_building import BuildOptions, BuiltLayer
from lazylayer_testing.synthetic import MemorySource, companions_of, make_blob

__all__ = [
    "PLUGIN",
    "BuiltFormatLayer",
    "FormatFixtures",
    "MakeLayer",
    "OpenLayer",
    "check_refusal",
    "describe",
    "layer_maker",
    "layer_opener",
    "plain_bytes",
    "read_chunks",
    "within",
]

PLUGIN = "format_checked"
"""The name under which the plugin is registered."""

Result = TypeVar("Result")


class BuiltFormatLayer(NamedTuple):
    """A layer in the format: its bytes, and how its builder describes it."""

    blob: bytes
    built: BuiltLayer

    @property
    def descriptor(self) -> Descriptor:
        """The layer's descriptor, with annotations."""
        return self.built.descriptor


MakeLayer = Callable[..., BuiltFormatLayer]
"""Called as `make_layer(archive, name="", **fields of BuildOptions)`; archive is a plain tar archive."""

OpenLayer = Callable[..., LayerContents]
"""Called as `open_layer(blob, descriptor, verify=True, source=None)`."""


def hooks_of(plugin: object) -> Hooks:
    """Return the hooks of a format plugin that is alone in its program."""
    manager = make_manager()
    manager.register(plugin, PLUGIN)
    return Hooks(manager)


def layer_maker(plugin: object) -> MakeLayer:
    """Return what builds layers with a plugin, in the first of its names unless another is given."""
    checked = hooks_of(plugin).of(PLUGIN)

    def make(archive: bytes, name: str = "", **options: object) -> BuiltFormatLayer:
        out = io.BytesIO()
        build = BuildOptions(**options)  # type: ignore[arg-type]
        names = describe(plugin).names
        built: BuiltLayer = checked.ask(
            "lazylayer_build_layer",
            format=name or names[0],
            source=io.BytesIO(archive),
            destination=out,
            build_options=build,
        )
        return BuiltFormatLayer(out.getvalue(), built)

    return make


def layer_opener(plugin: object) -> OpenLayer:
    """Return what opens a blob with a plugin, as `open_layer(blob, descriptor, verify=True, source=None)`."""
    hooks = hooks_of(plugin)

    def open_contents(
        blob: bytes, descriptor: Descriptor, verify: bool = True, source: MemorySource | None = None
    ) -> LayerContents:
        return hooks.open_layer(make_blob(blob, source), descriptor, verify, companions_of(blob))

    return open_contents


def describe(plugin: object) -> FormatInfo:
    """Return a plugin's description of its format."""
    described: Callable[[], FormatInfo] | None = getattr(plugin, "lazylayer_describe_format", None)
    assert described is not None, "a format plugin implements lazylayer_describe_format"
    return described()


class FormatFixtures:
    """The fixtures of all checks. Override `plugin`, and `make_layer` for a format that only reads."""

    @pytest.fixture
    def plugin(self) -> object:
        """To be overridden: returns the format plugin, configured."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture plugin")

    @pytest.fixture
    def info(self, plugin: object) -> FormatInfo:
        """The plugin's description of its format."""
        return describe(plugin)

    @pytest.fixture
    def make_layer(self, plugin: object) -> MakeLayer:
        """Build layers with the plugin."""
        if not hasattr(plugin, "lazylayer_build_layer"):
            pytest.skip("the plugin builds no layers; override make_layer to have it read some")
        return layer_maker(plugin)

    @pytest.fixture
    def open_layer(self, plugin: object) -> OpenLayer:
        """Open layers with the plugin."""
        return layer_opener(plugin)


def read_chunks(contents: LayerContents, blob: bytes, entry: Entry) -> bytes:
    """Return a file's content. Fails unless every chunk has its digest and they follow one another."""
    table, parts, reached = contents.chunks, [], 0
    for number in range(entry.first_chunk, entry.first_chunk + entry.chunk_count):
        chunk = table[number]
        start, end = table.member_range(table.member_of(number))
        assert 0 <= start < end <= len(blob), f"chunk {number} is in a member outside the blob"
        data = contents.inflate(memoryview(blob)[start:end], chunk.inner + chunk.size, start)
        assert len(data) == chunk.inner + chunk.size, f"inflate returned {len(data)} bytes"
        part = data[chunk.inner :]
        seal = table.seal_of(table.member_of(number))
        digest = hashlib.sha256(part if seal is None else memoryview(blob)[start:end]).digest()
        assert digest == (seal or chunk).digest, f"chunk {number}, or its sealed member, does not have its digest"
        assert chunk.file_offset == reached, f"chunk {number} begins at {chunk.file_offset}, not at {reached}"
        parts.append(part)
        reached += len(part)
    assert reached == entry.size, f"the chunks of a file of {entry.size} bytes hold {reached}"
    return b"".join(parts)


def check_refusal(error: LazylayerError) -> None:
    """Fail unless an error is the format's own, with a message: a bug in it becomes a PluginError."""
    assert str(error)
    assert not isinstance(error, PluginError), f"the plugin failed: {error}"


def plain_bytes(layer: BuiltFormatLayer) -> bytes:
    """Return what every runtime decompresses a layer to, by its media type."""
    media_type = layer.descriptor.media_type
    if "gzip" in media_type:
        return gzip.decompress(layer.blob)
    if "zstd" in media_type:
        zstandard = pytest.importorskip("zstandard")
        data: bytes = zstandard.ZstdDecompressor().stream_reader(layer.blob, read_across_frames=True).read()
        return data
    return layer.blob


def within(seconds: float, work: Callable[[], Result]) -> Result:
    """Return what `work` returns, or raise what it raises. Fails if it takes longer."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"not done after {seconds:g} s"
    if errors:
        raise errors[0]
    return results[0]
