"""`lazylayer explain`: say why an image is lazy or not, and where the bytes of a mount come from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lazylayer.cli import IMAGE, find_mount, load_program, load_settings, plain_http_override

if TYPE_CHECKING:
    from lazylayer.api.events import LayerState, MountState
    from lazylayer.api.oci import Reference
    from lazylayer_tool_node.layers import LayerReport


@click.command()
@click.option("--plain-http", is_flag=True, help="Speak plain HTTP to the registry.")
@click.argument("what", metavar="REF|DIR")
@click.pass_context
def explain(context: click.Context, what: str, plain_http: bool) -> None:
    """Say why the image REF is lazy or not, or where the bytes of the mount at DIR come from.

    DIR is what `lazylayer status` lists: an absolute path, or one that begins with a dot.
    """
    if what.startswith(("/", ".")):
        _explain_mount(context, Path(what))
        return
    reference: Reference = IMAGE.convert(what, None, context)
    _explain_image(context, reference, plain_http)


def _explain_image(context: click.Context, reference: Reference, plain_http: bool) -> None:
    from lazylayer.layers import resolve_image
    from lazylayer.mounts import Filesystem
    from lazylayer_tool_node.layers import examine_layers

    with load_program(context, plain_http_override(reference, plain_http)) as program:
        filesystem = Filesystem(program)
        try:
            resolved = resolve_image(program.hooks, program.settings, reference)
            reports = list(examine_layers(filesystem, resolved))
        finally:
            filesystem.close()
    lazy = [each for each in reports if each.format]
    total = sum(each.size for each in reports)
    lazy_size = sum(each.size for each in lazy)
    for line in (*_lines_of_image(reports), _verdict(len(lazy), len(reports), lazy_size, total)):
        click.echo(line)


def _lines_of_image(reports: list[LayerReport]) -> Iterator[str]:
    for number, each in enumerate(reports):
        head = f"layer {number}  {each.digest[7:19]}  {each.size / 1e6:.1f} MB"
        if not each.format:
            yield f"{head}  not lazy: {each.reason}"
            continue
        cost = f"opening it fetched {each.opened_with / 1e3:.0f} kB in {each.requests} requests from {each.source}"
        known = "the cache has its table of contents"
        yield f"{head}  lazy: {each.format}; {cost if each.requests else known}"


def _verdict(lazy: int, layers: int, lazy_size: int, total: int) -> str:
    if lazy == layers:
        return "The image is lazy: each part is fetched when it is first read."
    share = 100 * lazy_size / total if total else 0
    return (
        f"{layers - lazy} of {layers} layers are not lazy ({share:.0f} % of the bytes are): `lazylayer mount` refuses "
        "the image, and under containerd these layers are pulled whole; convert it with `lazylayer convert`"
    )


def _explain_mount(context: click.Context, directory: Path) -> None:
    from lazylayer.errors import NotMountedError

    run = Path(load_settings(context).run)
    mountpoint = os.path.abspath(directory)  # noqa: PTH100 - must not touch the mount
    process = find_mount(run, mountpoint)
    if process is None:
        raise NotMountedError(f"{mountpoint}: no lazylayer process serves a mount there; `lazylayer status` lists them")
    (mount,) = [each for each in process.mounts if each.mountpoint == mountpoint]
    for line in explain_mount(mount):
        click.echo(line)


def explain_mount(mount: MountState) -> Iterator[str]:
    """Yield lines that say where the bytes of a mount came from, and what it waits for."""
    yield f"{mount.mountpoint}  {mount.reference}  ({mount.frontend})"
    for layer in mount.layers:
        network = min(layer.network_bytes, layer.fetched)
        parts = [
            f"{layer.percent:.1f} % of {layer.size / 1e6:.1f} MB is here",
            f"{network / 1e6:.1f} MB came in {layer.requests} requests"
            + (f" from {layer.source}" if layer.source else ""),
            f"{(layer.fetched - network) / 1e6:.1f} MB were in the cache",
        ]
        yield f"  {layer.digest[7:19]}  {'; '.join(parts)}"
        for advice in _advice(layer):
            yield f"    {advice}"
    missing = sum(layer.size - layer.fetched for layer in mount.layers)
    if not missing:
        yield "All of it is here: reads wait for no registry."
    else:
        yield (
            f"{missing / 1e6:.1f} MB are still in the registry: a read of them waits for a request; "
            f"`lazylayer fetch {mount.mountpoint}` fetches them now"
        )


_SMALL = 32 * 1024
_MANY = 50


def _advice(layer: LayerState) -> Iterator[str]:
    if layer.error:
        yield f"its last failure: {layer.error}"
    if layer.requests >= _MANY and layer.network_bytes / layer.requests < _SMALL:
        average = layer.network_bytes / layer.requests / 1e3
        yield (
            f"slow: {average:.0f} kB for each request; convert the image with --record, so that what starts is "
            "together, or raise fetch.window_min"
        )
    if layer.network_bytes > 2 * layer.size:
        yield "slow: more was fetched than the layer has; the cache is too small, or does not keep its chunks"
