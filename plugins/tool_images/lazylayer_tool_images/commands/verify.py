"""`lazylayer verify`: check an image against everything that it promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lazylayer.cli import IMAGE, load_program, plain_http_override
from lazylayer_tool_images.commands.progress import ProgressBar

if TYPE_CHECKING:
    from lazylayer.api.oci import Reference
    from lazylayer_tool_images.verification import LayerVerification


@click.command()
@click.option("--plain-http", is_flag=True, help="Speak plain HTTP to the registry.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each layer.")
@click.argument("reference", type=IMAGE, metavar="REF")
@click.pass_context
def verify(context: click.Context, reference: Reference, plain_http: bool, as_json: bool) -> None:
    """Check everything in the image REF against its digests.

    Fetches every layer and checks the blob, the archive in it (its diff ID), the table of contents, every
    file of the archive against the table, and every chunk. Exits with 1 if anything is wrong.
    """
    from lazylayer.layers import resolve_image
    from lazylayer_tool_images.verification import verify_image

    good = True
    with load_program(context, plain_http_override(reference, plain_http)) as program:
        image = resolve_image(program.hooks, program.settings, reference)
        with ProgressBar() as progress:
            progress.begin(str(reference), sum(layer.size for layer in image.manifest.layers))
            for layer in verify_image(program.hooks, image, progress.advance):
                good = good and not layer.problems
                click.echo(_as_json(layer) if as_json else _as_text(layer))
    if not good:
        context.exit(1)


def _as_json(layer: LayerVerification) -> bytes:
    import msgspec

    return msgspec.json.encode(layer)


def _as_text(layer: LayerVerification) -> str:
    if layer.problems:
        what = "BAD"
    elif layer.format:
        what = f"good ({layer.format}, {layer.chunks} chunks)"
    else:
        what = "good, but cannot be fetched lazily"
    head = f"{layer.digest[7:19]}  {layer.size / 1e6:8.1f} MB  {what}"
    return "\n".join([head, *(f"    {problem}" for problem in layer.problems)])
