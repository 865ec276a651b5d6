"""The hooks that understand layers and fetch them ahead."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lazylayer import hookspec

if TYPE_CHECKING:
    from lazylayer.api import mounting
    from lazylayer.api.layers import FormatInfo, LayerContents, Locality, PrefetchPlan
    from lazylayer.api.oci import Descriptor, Digest
    from lazylayer.api.opened import CompanionImages, OpenedBlob, OpenedImage, OpenedLayer


@hookspec
def lazylayer_describe_format() -> FormatInfo | None:
    """Describe your layer format: its names, and the annotations by which its layers are recognized.

    All plugins are called, once per program, before the first layer is mounted, verified or built.

    :returns: the description, by which verify, convert, pull and mounts treat its layers like any other.

    Example::

        @hookimpl
        def lazylayer_describe_format():
            return FormatInfo(names=("mine",), annotations=(TOC, SIZE), toc_digest_label=TOC)

    Threading and errors: an error is logged, and the format is unknown.
    """


@hookspec
def lazylayer_annotate_layers(
    manifest_digest: Digest | None, labels: Mapping[str, str], companions: CompanionImages
) -> Mapping[Digest, Mapping[str, str]] | None:
    """Find what stands beside an image and says more of its layers, such as an index of each.

    All plugins are called, before layers that promise no table of contents are opened or pulled.

    :param manifest_digest: the digest of the image's manifest; None if a mount by labels does not tell it.
    :param labels: the labels of the mount; empty where an image is opened by its name.
    :param companions: the image's repository. A manifest that is known here is read without a request.
    :returns: annotations by the layer's digest, or None. Layers are opened as if their descriptors had them.

    Example::

        @hookimpl
        def lazylayer_annotate_layers(manifest_digest, companions):
            manifest = json.loads(companions.read_manifest(manifest_digest))
            return {each["digest"]: {TOC: manifest["annotations"][TOC]} for each in manifest["layers"]}

    Threading and errors: called for each mount, also by several threads. An error is logged, and layers are opened
    without.
    """


@hookspec(firstresult=True)
def lazylayer_open_layer(
    blob: OpenedBlob, descriptor: Descriptor, verify: bool, companions: CompanionImages
) -> LayerContents | None:
    """Read a layer's table of contents and verify it.

    Stops at the first result that is not None; None means that the layer is not in your format.

    :param blob: the layer's bytes. Read the tail once, large enough for most tables: each read may be a round trip.
    :param descriptor: the layer, with its annotations.
    :param verify: True if the table must have the digest that an annotation promises; no annotation is an error.
    :param companions: the blobs and images beside the layer, for what it keeps outside of it.
    :returns: the tree, the chunk map and how to inflate a member.

    Example::

        @hookimpl
        def lazylayer_open_layer(blob, descriptor, verify):
            footer = blob.read(blob.size - FOOTER_SIZE, FOOTER_SIZE)
            return read_contents(blob, footer, descriptor, verify) if footer.startswith(MAGIC) else None

    Threading and errors: raise FormatError or VerificationError for a bad layer. Bound every size first.
    """


@hookspec
def lazylayer_layer_opened(layer: OpenedLayer) -> Locality | None:
    """Hear of an opened layer, and return what you know of the files that are read together in it.

    All plugins are called, once for each opened layer, before its first read.

    :param layer: the layer. Keep a weak reference to it, if any: layers are closed, and opened again.
    :returns: an object that the layer's misses call until it is closed, or None.

    Example::

        @hookimpl
        def lazylayer_layer_opened(layer):
            return Fonts(layer)

    Threading and errors: a mount waits for you, so work when a miss calls, and not now. An error is logged.
    """


@hookspec(firstresult=True)
def lazylayer_plan_prefetch(layer: OpenedLayer, labels: Mapping[str, str]) -> PrefetchPlan | None:
    """Say which bytes of a layer to fetch before its first use.

    Stops at the first result that is not None; None leaves the decision to the next policy.

    :param layer: the opened layer; `layer.contents` has its tree and its chunks, `layer.descriptor` its size.
    :param labels: the labels of the mount, which may carry wishes; empty for a mount by hand.
    :returns: the plan; one without ranges prefetches nothing.

    Example::

        @hookimpl
        def lazylayer_plan_prefetch(layer, labels):
            return PrefetchPlan((ByteRange(0, min(layer.descriptor.size, 1 << 20)),), "the first MiB")

    Threading and errors: called once per layer. An error is reported, and nothing is prefetched.
    """


@hookspec
def lazylayer_prefetch_image(image: OpenedImage, labels: Mapping[str, str]) -> None:
    """Fetch files of an image before its first use, as far as the image as a whole says which.

    All plugins are called, once while the image's layers are open.

    :param image: the image. Keep it, if you like: its files can be fetched as long as their layers are open.
    :param labels: the labels of the first mount; empty for a mount by hand.

    Example::

        @hookimpl
        def lazylayer_prefetch_image(image):
            image.fetch(filter(None, [image.find(b"/etc/os-release")]))

    Threading and errors: called from a thread of its own, for which no mount waits. An error is logged.
    """


@hookspec
def lazylayer_add_virtual_entries(layer: OpenedLayer) -> Mapping[bytes, mounting.VirtualDirectory] | None:
    """Add hidden directories to the root of a layer's mount.

    All plugins are called, when a layer is opened; the answers are put together.

    :param layer: the layer; `layer.state()` says how much of it is here.
    :returns: directories by name, or None for none. They can be looked up, but are not listed.

    Example::

        @hookimpl
        def lazylayer_add_virtual_entries(layer):
            return {b".lazy": VirtualDirectory(0o555, {b"README": VirtualFile(0o444, lambda: b"lazy\\n")})}

    Threading and errors: `content` is called from any thread, each time the file is opened; keep it cheap.
    """
