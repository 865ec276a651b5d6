"""The CRI messages that the proxy reads, with only the fields that it needs.

The proxy forwards the original bytes, so that unknown fields survive. Source: `runtime.v1` in
`k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`.
"""

from __future__ import annotations

from typing import Annotated

from lazylayer_wire import Message

__all__ = ["AuthConfig", "ImageSpec", "PullImageRequest", "PullImageResponse", "RemoveImageRequest"]


class ImageSpec(Message, frozen=True):
    """`runtime.v1.ImageSpec`: an image by its reference or ID."""

    image: Annotated[str, 1] = ""


class AuthConfig(Message, frozen=True):
    """`runtime.v1.AuthConfig`: kubelet's credentials for one pull, kept out of `repr`."""

    username: Annotated[str, 1] = ""
    password: Annotated[str, 2] = ""
    auth: Annotated[str, 3] = ""
    server_address: Annotated[str, 4] = ""
    identity_token: Annotated[str, 5] = ""
    registry_token: Annotated[str, 6] = ""

    def __repr__(self) -> str:
        return "AuthConfig(…)"


class PullImageRequest(Message, frozen=True):
    """`runtime.v1.PullImageRequest`."""

    image: Annotated[ImageSpec, 1] = ImageSpec()
    auth: Annotated[AuthConfig, 2] = AuthConfig()


class PullImageResponse(Message, frozen=True):
    """`runtime.v1.PullImageResponse`."""

    image_ref: Annotated[str, 1] = ""


class RemoveImageRequest(Message, frozen=True):
    """`runtime.v1.RemoveImageRequest`."""

    image: Annotated[ImageSpec, 1] = ImageSpec()
