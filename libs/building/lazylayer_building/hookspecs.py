"""The hooks that build layers and write images; see `lazylayer.api.hookspecs` for the rules."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

from lazylayer import hookspec

if TYPE_CHECKING:
    from lazylayer.api.credentials import Keychain
    from lazylayer.api.oci import Reference
    from lazylayer_building import BuildOptions, BuiltLayer, ImageStore

ANSWERS: Mapping[str, tuple[str, ...]] = {
    "lazylayer_build_layer": ("lazylayer_building:BuiltLayer",),
    "lazylayer_open_store": ("lazylayer_building:ImageStore",),
}
"""The types that these hooks may return, as `module:name`."""


@hookspec
def lazylayer_build_layer(
    format: str, source: IO[bytes], destination: IO[bytes], build_options: BuildOptions
) -> BuiltLayer:
    """Build a layer of your format from a plain tar archive.

    Only the plugin whose `lazylayer_describe_format` has the name `format` is called.

    :param format: a name of your format, as in `convert --format`.
    :param source: the plain tar archive, read once from start to end.
    :param destination: where the layer goes, written once from start to end.
    :param build_options: how to build it. The same archive and options give the same bytes.
    :returns: the layer's descriptor, with the annotations that its readers need, and its diff ID.

    Example::

        @hookimpl
        def lazylayer_build_layer(source, destination, build_options):
            return write_layer(source, destination, build_options)

    Threading and errors: raise BuildError, which names the entry that cannot be represented, or FormatError.
    """


@hookspec(firstresult=True)
def lazylayer_open_store(reference: Reference, keychain: Keychain) -> ImageStore | None:
    """Open the place that `reference` names for writing an image to it.

    Stops at the first result that is not None; None means that this kind of reference is not yours.

    :param reference: the image to be written.
    :param keychain: `keychain(host)` returns credentials for a host, or None.
    :returns: the store. The core closes it.

    Example::

        @hookimpl
        def lazylayer_open_store(reference, keychain):
            return Shelf(reference.repository) if reference.scheme == "shelf" else None

    Threading and errors: raise BuildError or ResolveError.
    """
