"""`lazylayer diff`: show the differences between two images."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import click

from lazylayer.cli import IMAGE, load_program, plain_http_overrides

if TYPE_CHECKING:
    from lazylayer.api.oci import Reference
    from lazylayer_tool_images.comparison import Difference

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


@click.command()
@click.option("--plain-http", is_flag=True, help="Speak plain HTTP to the registries.")
@click.option("--ignore-times", is_flag=True, help="Ignore modification times.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each path.")
@click.argument("first", type=IMAGE, metavar="REF1")
@click.argument("second", type=IMAGE, metavar="REF2")
@click.pass_context
def diff(
    context: click.Context, first: Reference, second: Reference, plain_http: bool, ignore_times: bool, as_json: bool
) -> None:
    """Show the differences between the images REF1 and REF2.

    Compares the merged layers, as a container would see them. Fetches only tables of contents, and files
    that were cut differently. Exits with 1 if there are differences, 0 if there are none.
    """
    from lazylayer.mounts import Filesystem
    from lazylayer_tool_images.comparison import compare_images

    same = True
    overrides = plain_http_overrides([first, second], plain_http)
    with (
        load_program(context, overrides) as program,
        closing(Filesystem(program)) as filesystem,
        closing(filesystem.open_image(first)) as one,
        closing(filesystem.open_image(second)) as other,
    ):
        for difference in compare_images(one.merged(), other.merged(), times=not ignore_times):
            same = False
            click.echo(_as_json(difference) if as_json else _as_text(difference))
    if not same:
        context.exit(1)


def _as_json(difference: Difference) -> str:
    import json

    fields = {"kind": difference.kind, "path": os.fsdecode(difference.path), "what": list(difference.what)}
    return json.dumps(fields)


def _as_text(difference: Difference) -> bytes:
    what = f"  ({', '.join(difference.what)})" if difference.what else ""
    return f"{_SIGNS[difference.kind]} /".encode() + difference.path + what.encode()
