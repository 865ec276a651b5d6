"""Build one layer anew: from its source, through a decompressor and a format plugin, into a temporary file.

The blob is verified against its digest, the archive against the diff ID of the image config. Several threads may use
one `LayerConverter` at once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import IO, TYPE_CHECKING, cast

import msgspec

from lazylayer.api.oci import Descriptor, Digest, Reference
from lazylayer.api.tree import Tree
from lazylayer.errors import BuildError, LayerError, PluginError
from lazylayer.fetching import Blob, Opening
from lazylayer_building import BuildOptions, BuiltLayer, CompanionLayer, ImageStore
from lazylayer_tarlayers.plainlayer import PlainLayer
from lazylayer_tarlayers.tarmember import Readable
from lazylayer_tarlayers.wholeblob import BlobStream
from lazylayer_tool_images.building import build_layer
from lazylayer_tool_images.companionimages import RecordedCompanions
from lazylayer_tool_images.prefetchchoice import Name, names_in_archive, names_in_tree

if TYPE_CHECKING:
    from lazylayer.program import Hooks

__all__ = ["Choose", "ConvertedLayer", "LayerConverter"]

Choose = Callable[[Iterable[Name]], Sequence[bytes]]
"""Returns the paths of a layer to put first, given its names."""

_PIECE = 1024 * 1024


class ConvertedLayer:
    """A layer that was built, in a temporary file, which `close` removes."""

    def __init__(self, built: BuiltLayer, spool: IO[bytes]) -> None:
        self.descriptor = built.descriptor
        self.diff_id = built.diff_id
        self.companions = built.companions
        self._spool = spool

    def put(self, store: ImageStore) -> None:
        """Write the layer to `store`, unless it is there. Raises BuildError."""
        if not store.has_blob(self.descriptor.digest, self.descriptor.size):
            self._spool.seek(0)
            store.put_blob(self.descriptor, self._spool)

    def close(self) -> None:
        """Remove the temporary file."""
        self._spool.close()


class LayerConverter:
    """Converts layers to `format`. `advance` is called, from any thread, with the number of bytes read."""

    def __init__(self, hooks: Hooks, format: str, advance: Callable[[int], None]) -> None:
        self._hooks = hooks
        self._format = format
        self._advance = advance

    def convert(
        self, reference: Reference, layer: Descriptor, diff_id: Digest, build: BuildOptions, choose: Choose | None
    ) -> ConvertedLayer:
        """Convert a layer of an image. Raises ResolveError, LayerError or BuildError, which name the layer."""
        with (
            closing(self._hooks.resolve_blob(reference, layer)) as source,
            closing(BlobStream(source, layer, self._advance)) as stream,
            closing(PlainLayer(stream, diff_id)) as plain,
        ):
            try:
                converted = self.build(plain, build, choose)
                try:
                    found = plain.finish()
                    if build.keep_diff_id and converted.diff_id != found:
                        raise BuildError(f"the format {self._format} did not keep its diff ID")
                except BaseException:
                    converted.close()
                    raise
            except (LayerError, BuildError) as error:
                raise type(error)(f"layer {layer.digest}: {error}") from error
        return converted

    def build(self, archive: Readable, build: BuildOptions, choose: Choose | None = None) -> ConvertedLayer:
        """Build a layer of a plain archive, with the files first that `choose` chooses of its names.

        Raises LayerError or BuildError.
        """
        if choose is None:
            return self._build(archive, build)
        with tempfile.TemporaryFile() as file:
            try:
                while piece := archive.read(_PIECE):
                    file.write(piece)
                file.seek(0)
            except OSError as error:
                raise _no_room(error) from error
            prefetch = dict.fromkeys([*build.prefetch, *choose(names_in_archive(file))])
            file.seek(0)
            return self._build(file, msgspec.structs.replace(build, prefetch=tuple(prefetch)))

    def _build(self, archive: Readable, build: BuildOptions) -> ConvertedLayer:
        spool = tempfile.TemporaryFile()  # noqa: SIM115 - it is the result's
        try:
            built = build_layer(self._hooks, self._format, cast("IO[bytes]", archive), spool, build)
        except BaseException as error:
            spool.close()
            cause = error.__cause__ if isinstance(error, PluginError) else error
            if not isinstance(cause, OSError):
                raise
            raise _no_room(cause) from error
        if build.external_toc and not built.companions:
            spool.close()
            raise BuildError(f"the format {self._format} does not support external tables of contents")
        return ConvertedLayer(built, spool)

    def reuse(
        self, reference: Reference, layer: Descriptor, store: ImageStore, choose: Choose | None
    ) -> tuple[CompanionLayer, ...]:
        """Copy a layer unchanged and return its companions. Files that `choose` chooses stay where they are.

        Raises ResolveError, LayerError or BuildError.
        """
        tree, companions = self._look_into(reference, layer)
        if choose is not None:
            choose(names_in_tree(tree))
        if store.has_blob(layer.digest, layer.size) or store.take_blob(layer, reference):
            self._advance(layer.size)
            return companions
        with (
            closing(self._hooks.resolve_blob(reference, layer)) as source,
            closing(BlobStream(source, layer, self._advance)) as stream,
        ):
            store.put_blob(layer, cast("IO[bytes]", stream))
        return companions

    def _look_into(self, reference: Reference, layer: Descriptor) -> tuple[Tree, tuple[CompanionLayer, ...]]:
        """Return the tree of a layer, and the companion layers that its format reads when it opens it."""
        with closing(Blob(lambda: self._hooks.resolve_blob(reference, layer), layer.digest, layer.size)) as blob:
            opening = Opening(blob)
            companions = RecordedCompanions(self._hooks, reference, opening)
            contents = self._hooks.open_layer(opening, layer, True, companions)
        return contents.tree, companions.layers


def _no_room(error: OSError) -> BuildError:
    return BuildError(
        f"cannot write the layer to {tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a directory with more room"
    )
