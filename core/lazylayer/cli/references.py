"""Image references as arguments of commands."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from lazylayer.errors import InvalidReferenceError

if TYPE_CHECKING:
    from lazylayer.api.oci import Reference

__all__ = ["IMAGE", "IMAGE_PATH", "IMAGE_TEXT", "TEXT", "plain_http_override", "plain_http_overrides"]


class _Text(click.ParamType):  # type: ignore[type-arg]  # generic in new versions only
    """A text that other programs are given, in UTF-8."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            str(value).encode()
        except UnicodeEncodeError:
            self.fail(f"{value!r} is not UTF-8", param, ctx)
        return str(value)


def _refuse_url(value: str) -> None:
    url = re.match(r"(?:https?|docker|oci-registry)://", value)
    if url:
        option = ", and add --plain-http" if url[0] == "http://" else ""
        said = f"{value}: references of images have no {url[0]}; write {value[url.end() :]}{option}"
        raise click.BadParameter(said)


class _ImageText(_Text):
    """`REF`, as text for a daemon to parse."""

    name = "REF"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        _refuse_url(value)
        return super().convert(value, param, ctx)


class _Image(click.ParamType):  # type: ignore[type-arg]  # generic in new versions only
    """`REF`, as a `Reference`."""

    name = "REF"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Reference:
        import msgspec

        from lazylayer.api.oci import PATH_SCHEMES, Reference, parse_reference

        if isinstance(value, Reference):
            return value
        _refuse_url(value)
        try:
            reference = parse_reference(value)
        except InvalidReferenceError as error:
            self.fail(str(error), param, ctx)
        if reference.scheme in PATH_SCHEMES:
            # The process that serves a mount may run elsewhere, and later.
            return msgspec.structs.replace(reference, repository=os.path.abspath(reference.repository))  # noqa: PTH100
        return reference


class _ImagePath(click.ParamType):  # type: ignore[type-arg]  # likewise
    """`REF` or `REF:/PATH`, as an image and a path, `/` if there is none."""

    name = "REF[:PATH]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Reference, bytes]:
        from lazylayer.api.oci import PATH_SCHEMES

        if isinstance(value, tuple):
            return value
        # The first `:/` behind the scheme ends the image: neither tags nor hosts hold a slash.
        scheme = re.match(rf"[a-z][a-z0-9+.-]*://|(?:{'|'.join(PATH_SCHEMES)}):", value)
        image, colon, path = value[scheme.end() if scheme else 0 :].partition(":/")
        return IMAGE.convert((scheme[0] if scheme else "") + image, param, ctx), os.fsencode(colon[1:] + path or "/")


TEXT = _Text()
IMAGE = _Image()
IMAGE_TEXT = _ImageText()
IMAGE_PATH = _ImagePath()


def plain_http_override(reference: Reference, plain_http: bool) -> list[str]:
    """Return the setting that lets this run, and no other, speak plain HTTP to the host of `reference`."""
    return plain_http_overrides([reference], plain_http)


def plain_http_overrides(references: Sequence[Reference], plain_http: bool) -> list[str]:
    """Return the same for the hosts of several references; those that are not in a registry need none."""
    if not plain_http:
        return []
    hosts = sorted({reference.host for reference in references if reference.host})
    if not hosts:
        names = " and ".join(map(str, references))
        are = "is" if len(references) == 1 else "are"
        raise click.UsageError(f"--plain-http is for registries; {names} {are} not in one")
    return ["resolve.plain_http=[" + ", ".join(f'"{host}"' for host in hosts) + "]"]
