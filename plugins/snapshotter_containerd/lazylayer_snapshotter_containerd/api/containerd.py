"""The calls of a pull to containerd: content, diff, images, introspection, leases and namespaces."""

# ruff: noqa: RUF012 - msgspec copies the defaults of structs

from __future__ import annotations

from typing import Annotated

from lazylayer_snapshotter_containerd.api.types import Descriptor, FieldMask, Mount
from lazylayer_wire import Message

__all__ = [
    "CONTENT",
    "DIFF",
    "IMAGES",
    "INTROSPECTION",
    "LEASES",
    "NAMESPACES",
    "ApplyRequest",
    "ApplyResponse",
    "ContentInfo",
    "ContentInfoRequest",
    "ContentInfoResponse",
    "CreateLeaseRequest",
    "CreateLeaseResponse",
    "CreateNamespaceRequest",
    "DeleteLeaseRequest",
    "GetImageRequest",
    "GetNamespaceRequest",
    "Image",
    "ImageRequest",
    "ImageResponse",
    "Lease",
    "Namespace",
    "NamespaceResponse",
    "Plugin",
    "PluginsRequest",
    "PluginsResponse",
    "UpdateContentRequest",
    "WriteAction",
    "WriteContentRequest",
    "WriteContentResponse",
]

CONTENT = "containerd.services.content.v1.Content"
DIFF = "containerd.services.diff.v1.Diff"
IMAGES = "containerd.services.images.v1.Images"
INTROSPECTION = "containerd.services.introspection.v1.Introspection"
LEASES = "containerd.services.leases.v1.Leases"
NAMESPACES = "containerd.services.namespaces.v1.Namespaces"


class ContentInfo(Message, frozen=True):
    """A blob, as the content store knows it."""

    digest: Annotated[str, 1] = ""
    size: Annotated[int, 2] = 0
    labels: Annotated[dict[str, str], 5] = {}


class ContentInfoRequest(Message, frozen=True):
    """Of Content.Info."""

    digest: Annotated[str, 1] = ""


class ContentInfoResponse(Message, frozen=True):
    """The answer to Content.Info and Content.Update."""

    info: Annotated[ContentInfo | None, 1] = None


class UpdateContentRequest(Message, frozen=True):
    """Of Content.Update."""

    info: Annotated[ContentInfo | None, 1] = None
    update_mask: Annotated[FieldMask | None, 2] = None


class WriteAction:
    """The kind of a WriteContentRequest."""

    STAT = 0
    WRITE = 1
    COMMIT = 2


class WriteContentRequest(Message, frozen=True):
    """One of the requests of Content.Write; see containerd's content.proto for the dialogue."""

    action: Annotated[int, 1] = WriteAction.STAT
    ref: Annotated[str, 2] = ""
    total: Annotated[int, 3] = 0
    expected: Annotated[str, 4] = ""
    offset: Annotated[int, 5] = 0
    data: Annotated[bytes, 6] = b""
    labels: Annotated[dict[str, str], 7] = {}


class WriteContentResponse(Message, frozen=True):
    """The answer to each of them."""

    action: Annotated[int, 1] = 0
    offset: Annotated[int, 4] = 0
    total: Annotated[int, 5] = 0
    digest: Annotated[str, 6] = ""


class ApplyRequest(Message, frozen=True):
    """Of Diff.Apply: unpack the layer `diff` of the content store into `mounts`."""

    diff: Annotated[Descriptor | None, 1] = None
    mounts: Annotated[list[Mount], 2] = []


class ApplyResponse(Message, frozen=True):
    """The answer to Diff.Apply; the digest of `applied` is that of the uncompressed layer."""

    applied: Annotated[Descriptor | None, 1] = None


class Image(Message, frozen=True):
    """An image of containerd: a name for a manifest or index."""

    name: Annotated[str, 1] = ""
    labels: Annotated[dict[str, str], 2] = {}
    target: Annotated[Descriptor | None, 3] = None


class ImageRequest(Message, frozen=True):
    """Of Images.Create and Images.Update."""

    image: Annotated[Image | None, 1] = None


class GetImageRequest(Message, frozen=True):
    """Of Images.Get."""

    name: Annotated[str, 1] = ""


class ImageResponse(Message, frozen=True):
    """The answer to Images.Get, Images.Create and Images.Update."""

    image: Annotated[Image | None, 1] = None


class Lease(Message, frozen=True):
    """A lease: what is made under it is not collected while it lasts."""

    id: Annotated[str, 1] = ""
    labels: Annotated[dict[str, str], 3] = {}


class CreateLeaseRequest(Message, frozen=True):
    """Of Leases.Create."""

    id: Annotated[str, 1] = ""
    labels: Annotated[dict[str, str], 3] = {}


class CreateLeaseResponse(Message, frozen=True):
    """The answer to Leases.Create."""

    lease: Annotated[Lease | None, 1] = None


class DeleteLeaseRequest(Message, frozen=True):
    """Of Leases.Delete."""

    id: Annotated[str, 1] = ""


class Namespace(Message, frozen=True):
    """A namespace of containerd."""

    name: Annotated[str, 1] = ""
    labels: Annotated[dict[str, str], 2] = {}


class GetNamespaceRequest(Message, frozen=True):
    """Of Namespaces.Get."""

    name: Annotated[str, 1] = ""


class CreateNamespaceRequest(Message, frozen=True):
    """Of Namespaces.Create."""

    namespace: Annotated[Namespace | None, 1] = None


class NamespaceResponse(Message, frozen=True):
    """The answer to Namespaces.Get and Namespaces.Create."""

    namespace: Annotated[Namespace | None, 1] = None


class PluginsRequest(Message, frozen=True):
    """Of Introspection.Plugins."""

    filters: Annotated[list[str], 1] = []


class Plugin(Message, frozen=True):
    """A plugin of containerd; a proxy plugin exports its `address`."""

    type: Annotated[str, 1] = ""
    id: Annotated[str, 2] = ""
    exports: Annotated[dict[str, str], 5] = {}


class PluginsResponse(Message, frozen=True):
    """The answer to Introspection.Plugins."""

    plugins: Annotated[list[Plugin], 1] = []
